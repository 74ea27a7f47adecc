//! The harness of the end-to-end tests: the real binary as a process, real files, real sockets.
//!
//! * [`admin::Way`]: a way to ask a running agent.
//! * [`agent::Agent`]: a running agent, its log and its exit code.
//! * [`alertmanager::Alertmanager`]: a real Alertmanager.
//! * [`fleet::Fleet`]: a control plane and three agents, as processes.
//! * [`prometheus::Prometheus`]: a real Prometheus that takes remote write.
//! * [`remote_write::RemoteWriteBench`]: the exporter of remote write in this process.
//! * [`rig::Rig`]: a directory of logs, a state directory, a fake Loki and the oracle that judges
//!   what arrives there; makes configurations and starts agents on them.
//! * [`chromium::Chromium`]: a browser that is driven.
//! * [`configs`]: configurations that several tests start from.
//! * [`confine::Group`]: limits of memory and CPU for an agent, and other ways to start it.
//! * [`disk_stall::Watch`]: how long the machine's disk did not answer.
//! * [`dns::NameServer`]: a name server that says what a test wants.
//! * [`docker::Engine`]: a real Docker Engine.
//! * [`exporter::LokiBench`], [`contract::Case`]: the Loki exporter in this process, on a clock that tests move.
//! * [`fault_row::Row`]: what a row of the fault matrix did and reached.
//! * [`front::Front`]: what spoils connections on their way to the sink.
//! * [`opamp::OpAmpServer`]: a control plane that holds an agent to the specification.
//! * [`otlp_client`]: clients of OTLP.
//! * [`pods::Pods`]: a node of Kubernetes with its API server.
//! * [`page::PageStand`]: an agent whose status page is looked at.
//! * [`scrape::Scrape`]: the agent's metrics at one instant.
//! * [`stand::Stand`]: an agent whose records are seen as they are, attributes included.
//! * [`terminal::Terminal`]: a program in a terminal, and what is seen on it.
//! * [`tls::TlsFront`], [`tls::Proxy`]: what may stand in front of the sink.
//! * [`wait`]: waiting for a condition, always with a bound.
//!
//! Helpers panic with what they saw when the machine or the agent does something a test cannot
//! go on after; everything listens on loopback addresses only, and an agent is only ever ended by its own
//! process id.

pub mod admin;
pub mod agent;
pub mod alertmanager;
pub mod changes;
pub mod chromium;
pub mod configs;
pub mod confine;
pub mod contract;
pub mod control;
pub mod disk_stall;
pub mod dns;
pub mod docker;
pub mod exporter;
pub mod fault_row;
pub mod fleet;
pub mod front;
pub mod opamp;
pub mod otlp_client;
pub mod page;
pub mod pods;
pub mod prometheus;
pub mod remote_write;
pub mod rig;
pub mod scrape;
pub mod stand;
pub mod terminal;
pub mod tls;
pub mod wait;
