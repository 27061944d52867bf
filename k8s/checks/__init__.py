"""An overlay in, what is wrong with it out: file, line, what and the mend."""
