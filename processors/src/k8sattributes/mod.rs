//! Access to the API of a Kubernetes cluster, as processors have it.

pub(crate) mod access;
