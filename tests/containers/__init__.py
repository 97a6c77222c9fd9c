"""The image, the compose stack and the Kubernetes manifests, run by real engines."""
