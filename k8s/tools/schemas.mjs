// A JSON list of Gateway API's, KEDA's and Prometheus's operator's objects on stdin in; what their schemas refuse out, a line each, and exit 1.
// The argument is the node_modules that they lie in.
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const packages = {
  "gateway.networking.k8s.io/v1": "gateway-api/gateway.networking.k8s.io/v1",
  "keda.sh/v1alpha1": "keda/keda.sh/v1alpha1",
  "monitoring.coreos.com/v1": "prometheus-operator/monitoring.coreos.com/v1",
};
for (const object of JSON.parse(readFileSync(0, "utf8"))) {
  const place = resolve(process.argv[2], "@kubernetes-models", packages[object.apiVersion], "index.js");
  const kinds = await import(pathToFileURL(place));
  try {
    new kinds[object.kind](object).validate();
  } catch (error) {
    console.log(`${object.kind} ${object.metadata.name}: ${error.message}`);
    process.exitCode = 1;
  }
}
