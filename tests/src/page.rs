//! The status page of a running agent, and who looks at it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tailwater_testkit::writer::live::{LiveOptions, LiveWriter};

use crate::admin::Way;
use crate::agent::{Agent, free_port};
use crate::chromium::{self, Chromium};
use crate::rig::Rig;

/// The token of its endpoint.
pub const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Where an agent with its admin API is to be: `filelog` to `loki`, and `filelog/audit` to `debug`.
pub struct PageStand {
    /// Files and sink.
    pub rig: Rig,
    /// What [`PageStand::start`] starts it with.
    pub config: Value,
    /// Of its endpoint.
    pub address: SocketAddr,
    /// The same, with the token.
    pub way: Way,
    /// The other way in.
    pub socket: Way,
}

impl PageStand {
    /// One whose directory is named after `label`.
    ///
    /// # Panics
    /// When files or a port are not to be had.
    pub fn new(label: &str) -> Self {
        let rig = Rig::new(label);
        let token = rig.path("token");
        fs::write(&token, format!("{TOKEN}\n")).expect("a file");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().expect("a port")));
        let socket = rig.path("admin.sock");
        let mut config = rig.config();
        config["processors"]["resource"] =
            json!({"attributes": [{"key": "a", "value": "b", "action": "upsert"}]});
        config["exporters"]["debug"] = json!({});
        config["receivers"]["filelog/audit"] =
            json!({"include": [rig.logs("*.audit")], "start_at": "beginning"});
        config["service"]["pipelines"]["logs"]["processors"] = json!(["resource", "batch"]);
        config["service"]["pipelines"]["logs/audit"] =
            json!({"receivers": ["filelog/audit"], "exporters": ["debug"]});
        config["service"]["admin"] =
            json!({"socket": socket, "endpoint": address.to_string(), "token_file": token});
        Self {
            rig,
            config,
            address,
            way: Way::Endpoint(address, Some(TOKEN.to_owned())),
            socket: Way::Socket(socket),
        }
    }

    /// Starts the agent and waits until it is ready.
    pub fn start(&self) -> Agent {
        self.rig.start(&self.config)
    }

    /// The configuration that runs, with another timeout of `batch`.
    ///
    /// # Panics
    /// When its file is not there.
    pub fn with_timeout(&self, agent: &Agent, timeout: &str) -> String {
        let text = fs::read_to_string(agent.config_file()).expect("a file");
        let mut config: Value = serde_json::from_str(&text).expect("it is JSON");
        config["processors"]["batch"]["timeout"] = json!(timeout);
        format!("{config:#}")
    }

    /// The generation in force.
    pub fn generation(&self) -> Value {
        self.way.get("/v1/generations").json()["generation"].clone()
    }

    /// Begins to write 200 lines a second.
    ///
    /// # Panics
    /// When there is no thread for it.
    pub fn live(&self) -> LiveWriter {
        let options = LiveOptions {
            lines_per_second: 200,
            rotate_every_lines: None,
            lines_max: None,
        };
        LiveWriter::start(self.rig.writer(1, "app.log", |_| {}), options).expect("a thread")
    }

    /// A browser whose page has been let in.
    pub fn browser(&self, binary: &Path) -> Chromium {
        let mut browser = Chromium::start(binary);
        browser.resize(1366, 900);
        browser.prefer("light");
        browser.open(&format!("http://{}/", self.address));
        browser.wait("document.activeElement?.id === 'token'");
        browser.write(TOKEN);
        browser.key("Enter", false);
        browser.wait("!document.getElementById('graph').hidden && document.querySelector('.node')");
        browser
    }

    /// The browser has complained of nothing but of answers that `expected` names, and nothing was
    /// asked of anybody else. Ends both.
    ///
    /// # Panics
    /// When it is not so.
    pub fn finish(&self, mut browser: Chromium, agent: Agent, expected: &[&str]) {
        let own = format!("http://{}/", self.address);
        for url in browser.asked() {
            let inside = url.starts_with(&own) || url == "about:blank";
            assert!(inside, "{url} was asked for");
        }
        let mut complaints = browser.complaints();
        complaints.retain(|c| !expected.iter().any(|e| c.contains(e)));
        assert!(complaints.is_empty(), "{complaints:#?}");
        drop(browser);
        agent.stop_clean();
    }
}

/// The browser; None, said aloud, if there is none.
pub fn browser_binary() -> Option<PathBuf> {
    let found = chromium::find();
    if let Err(why) = &found {
        println!("SKIPPED: the status page in a browser: {why}");
    }
    found.ok()
}

/// A node of the drawing.
pub fn node(key: &str) -> String {
    format!("document.querySelector('#drawing [data-key=\"{key}\"]')")
}

/// Opens a view by its address.
pub fn view(browser: &mut Chromium, name: &str) {
    browser.evaluate(&format!("location.hash = '#{name}'"));
    let current = "document.querySelector('#nav [aria-current]')?.hash";
    browser.wait(&format!(
        "!document.getElementById('{name}').hidden && {current} === '#{name}'"
    ));
}
