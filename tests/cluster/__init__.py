"""The Kubernetes manifests on a real cluster of one node, which `eval "$(.ci/cluster start)"` provides.

Pods reach the embedded Proctor at CLUSTER_HOST. Without that variable the tests are skipped; in CI they fail.
"""
