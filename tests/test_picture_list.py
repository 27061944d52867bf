"""A list of pictures is read in either form, and what is wrong in it names its line."""

from pathlib import Path

import pytest

from limner.picture_list import Wanted, consecutive, read
from training.errors import ConfigError


@pytest.mark.parametrize(
    "text",
    [
        "label,seed\n3,7\n,8\ntrouser,9223372036854775807\n",
        "\ufeffseed , label\r\n7,3\r\n\r\n8,\r\n9223372036854775807, trouser \r\n",
        'seed,label\n7,"3"\n8,""\n9223372036854775807,"trouser"',
        '{"label": "3", "seed": 7}\n{"seed": "8"}\n\n{"label": "trouser", "seed": 9223372036854775807}\n',
        '{"seed": 7, "label": "3"}\n{"label": null, "seed": 8}\n{"seed": "9223372036854775807", "label": "trouser"}',
    ],
)
def test_csv_and_json_lines_say_the_same(tmp_path: Path, text: str) -> None:
    (tmp_path / "list").write_text(text)
    assert read(tmp_path / "list") == [Wanted("3", 7), Wanted(None, 8), Wanted("trouser", 2**63 - 1)]


def test_seeds_alone_are_enough_and_a_json_integer_is_an_index(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("seed\n1\n2\n")
    assert read(tmp_path / "list") == [Wanted(None, 1), Wanted(None, 2)]
    (tmp_path / "list").write_text('{"label": 3, "seed": 1}')
    assert read(tmp_path / "list") == [Wanted(3, 1)]


@pytest.mark.parametrize(
    ("content", "where", "what"),
    [
        (b"label,seed\n3,7\n3,seven\n", "line 3", 'seed="seven"'),
        (b"label,seed\n3,-1\n", "line 2", 'seed="-1"'),
        (b"label,seed\n3,1.5\n", "line 2", "2^63 - 1"),
        (b"label,seed\n3,9223372036854775808\n", "line 2", "2^63 - 1"),
        (b"label,seed\n3\n", "line 2", "no seed"),
        (b"label,seed\n3,7,9\n", "line 2", "more cells"),
        (b"label,seed,colour\n3,7,red\n", "line 2", "'colour'"),
        (b"label;seed\n3;7\n", "line 1", "no header"),
        (b"3,7\n4,8\n", "line 1", "no header"),
        (b"seed,seed\n3,7\n", "line 1", "no header"),
        (b'label,seed\n"3,7\n', "line 2", "label,seed"),
        (b'{"seed": 7}\n{"seed": 8\n', "line 2", "no JSON"),
        (b'{"seed": 7}\n\n[8]\n', "line 3", "no JSON object"),
        (b'{"seed": true}\n', "line 1", "seed=true"),
        (b'{"seed": NaN}\n', "line 1", "2^63 - 1"),
        (b'{"label": 1.5, "seed": 1}\n', "line 1", "label=1.5"),
        (b'{"label": 1, "sede": 1}\n', "line 1", "'sede'"),
        (b" \n", "list", "is empty"),
        (b"label,seed\n", "list", "names no picture"),
        (b"\x89PNG\r\n\xff\xfe", "list", "no text"),
    ],
)
def test_what_is_wrong_names_its_line(tmp_path: Path, content: bytes, where: str, what: str) -> None:
    (tmp_path / "list").write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        read(tmp_path / "list")
    assert where in str(refused.value)
    assert what in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_label_is_a_class_name_before_it_is_an_index_and_an_integer_is_an_index() -> None:
    assert [Wanted(label, 1).index(["0", "2", "1"]) for label in ("2", 2, "1", None)] == [1, 2, 2, None]
    assert Wanted("1", 1).index(["cat", "dog"]) == 1
    with pytest.raises(
        ConfigError, match=r"line 4: label=cat is not allowed. Allowed: a class name \(0, 1\) or an index"
    ):
        Wanted("cat", 1, "line 4: ").index(["0", "1"])
    with pytest.raises(ConfigError, match="no classes"):
        Wanted(0, 1).index([])


def test_consecutive_seeds_wrap() -> None:
    assert [one.seed for one in consecutive("a", 2**63 - 2, 3)] == [2**63 - 2, 2**63 - 1, 0]
    with pytest.raises(ConfigError, match="seed=-1"):
        consecutive(None, -1, 1)
