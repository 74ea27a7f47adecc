//! `k8s_api`, formerly `k8snode`: the node of a Kubernetes cluster that this runs on.

use tailwater_kubernetes::model::Named;
use tailwater_kubernetes::{Access, Client, Form};
use tailwater_pdata::Map;

use super::detection::{Detected, Detector};

/// What it can find, and whether it does unless told otherwise.
pub(super) const ATTRIBUTES: [(&str, bool); 3] =
    [(CLUSTER_UID, true), (NODE_NAME, true), (NODE_UID, true)];
const CLUSTER_UID: &str = "k8s.cluster.uid";
const NODE_NAME: &str = "k8s.node.name";
const NODE_UID: &str = "k8s.node.uid";

/// Asks the API server about a node.
pub(super) struct KubernetesNode {
    client: Client,
    node: String,
    attributes: Vec<&'static str>,
}

impl KubernetesNode {
    pub fn new(access: Access, node: String, attributes: Vec<&'static str>) -> KubernetesNode {
        KubernetesNode {
            client: Client::new(access, crate::k8sattributes::access::USER_AGENT),
            node,
            attributes,
        }
    }

    async fn ask(&self) -> Result<Map, String> {
        let mut map = Map::new();
        let wants = |name| self.attributes.contains(&name);
        if wants(NODE_NAME) || wants(NODE_UID) {
            let path = format!("/api/v1/nodes/{}", self.node);
            let node: Named = self.get(&path).await?;
            if wants(NODE_UID) {
                map.insert(NODE_UID, node.metadata.uid);
            }
            if wants(NODE_NAME) {
                map.insert(NODE_NAME, node.metadata.name);
            }
        }
        if wants(CLUSTER_UID) {
            match self.get("/api/v1/namespaces/kube-system").await {
                Ok(namespace) => {
                    map.insert(CLUSTER_UID, namespace.metadata.uid);
                }
                // Rights for nodes are common, those for this namespace are not.
                Err(error) => tracing::warn!(error, "k8s.cluster.uid is not known"),
            }
        }
        Ok(map)
    }

    async fn get(&self, path: &str) -> Result<Named, String> {
        let answer = self.client.get(path, Form::Metadata).await;
        answer.map_err(|e| e.to_string())
    }
}

impl Detector for KubernetesNode {
    fn name(&self) -> &'static str {
        "k8s_api"
    }

    fn detect(&self) -> Detected<'_> {
        Box::pin(self.ask())
    }
}
