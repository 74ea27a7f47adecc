//! Headless Chromium of the distribution, driven over a pipe by its DevTools protocol (messages of JSON
//! that end with a zero byte).

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tailwater_testkit::tempdir::TempDir;

/// Names the binary, if it is not to be looked for.
const VARIABLE: &str = "TAILWATER_CHROMIUM";
/// What it may be called.
const NAMES: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];
/// How long an answer may take on a busy machine.
const ANSWER_BOUND: Duration = Duration::from_secs(60);
/// How long a page may take to become as it is waited for: some conditions of the agent take 20 s.
const PAGE_BOUND: Duration = Duration::from_secs(90);
/// Between two looks at a page: each is work for it.
const PAUSE: Duration = Duration::from_millis(50);

/// A running browser with one page. Ends with this value.
pub struct Chromium {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    session: Option<String>,
    last: u64,
    events: Vec<Value>,
    _profile: TempDir,
}

/// Where the binary is: as the variable `TAILWATER_CHROMIUM` says, or in `PATH`. `cargo xtask test`
/// installs the distribution's package `chromium` where it may.
///
/// # Errors
/// A text for people: why there is none.
pub fn find() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os(VARIABLE) {
        return Ok(path.into());
    }
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&dirs).flat_map(|dir| NAMES.map(|name| dir.join(name)));
    let found = places.find(|path| path.is_file());
    found.ok_or_else(|| {
        format!("there is no Chromium in PATH (package chromium), and {VARIABLE} names none")
    })
}

impl Chromium {
    /// Starts it with an empty profile and an empty page.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(binary: &Path) -> Self {
        let profile = TempDir::new("chromium").expect("a directory");
        let mut command = Command::new("sh");
        // It talks over descriptors 3 and 4.
        command.args([
            "-c",
            "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1",
            "sh",
        ]);
        command.arg(binary).args([
            "--headless",
            "--remote-debugging-pipe",
            "--no-first-run",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-extensions",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--force-color-profile=srgb",
        ]);
        if rustix::process::geteuid().is_root() {
            // Its sandbox is not for root; the page is our own.
            command.arg("--no-sandbox");
        }
        let data = format!("--user-data-dir={}", profile.path().display());
        let mut child = command
            .args([&data, "about:blank"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let to = child.stdin.take().expect("a pipe");
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        let (send, from) = channel();
        // Ends with the pipe, which ends with the browser.
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while out.read_until(0, &mut message).is_ok_and(|n| n > 0) {
                message.pop();
                let value = serde_json::from_slice(&message).unwrap_or_default();
                message.clear();
                if send.send(value).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self {
            child,
            to,
            from,
            session: None,
            last: 0,
            events: Vec::new(),
            _profile: profile,
        };
        let target = browser.command("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.command("Target.attachToTarget", attach);
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Network", "Log", "Accessibility"] {
            browser.command(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Sends a command and waits for what it gives.
    ///
    /// # Panics
    /// When it fails, or is not answered.
    pub fn command(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes).expect("the browser runs");
        let end = Instant::now() + ANSWER_BOUND;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let mut value = match self.from.recv_timeout(left) {
                Ok(value) => value,
                Err(RecvTimeoutError::Timeout) => panic!("{method} was not answered"),
                Err(RecvTimeoutError::Disconnected) => panic!("the browser is gone: {method}"),
            };
            if value["id"] == self.last {
                assert!(value["error"].is_null(), "{method}: {value}");
                return value["result"].take();
            }
            self.events.push(value);
        }
    }

    /// Goes to an address.
    pub fn open(&mut self, url: &str) {
        let gone = self.command("Page.navigate", json!({"url": url}));
        assert!(gone["errorText"].is_null(), "{url}: {gone}");
    }

    /// What an expression of JavaScript gives in the page; what it promises is waited for.
    ///
    /// # Panics
    /// When it throws.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let mut answer = self.command("Runtime.evaluate", asked);
        let thrown = &answer["exceptionDetails"];
        assert!(thrown.is_null(), "{expression}: {thrown:#}");
        answer["result"]["value"].take()
    }

    /// As [`Chromium::evaluate`], of what gives a text.
    pub fn text(&mut self, expression: &str) -> String {
        let value = self.evaluate(expression);
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    }

    /// Waits until an expression holds.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn wait(&mut self, expression: &str) {
        let end = Instant::now() + PAGE_BOUND;
        let whole = format!("Boolean({expression})");
        while self.evaluate(&whole) != true {
            if Instant::now() > end {
                let seen = self.text("document.body.innerText");
                panic!("it does not come: {expression}\nthe page says:\n{seen}");
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Clicks at the middle of what a selector finds first.
    ///
    /// # Panics
    /// When there is nothing.
    pub fn click(&mut self, selector: &str) {
        let found = format!(
            "(() => {{ const e = document.querySelector({}); e.scrollIntoView({{block: 'center'}}); \
             const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()",
            json!(selector)
        );
        let at = self.evaluate(&found);
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({
                "type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1,
            });
            self.command("Input.dispatchMouseEvent", event);
        }
    }

    /// Presses a key: `Tab`, `Enter`, `Escape`, ` `; with shift if it is said.
    pub fn key(&mut self, key: &str, shift: bool) {
        let (code, text) = match key {
            "Tab" => (9, None),
            "Enter" => (13, Some("\r")),
            "Escape" => (27, None),
            " " => (32, Some(" ")),
            other => panic!("no key {other}"),
        };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({
                "type": kind, "key": key, "code": if key == " " { "Space" } else { key },
                "windowsVirtualKeyCode": code, "modifiers": if shift { 8 } else { 0 },
            });
            if let (Some(text), "keyDown") = (text, kind) {
                event["text"] = json!(text);
            }
            self.command("Input.dispatchKeyEvent", event);
        }
    }

    /// Writes a text where the focus is.
    pub fn write(&mut self, text: &str) {
        self.command("Input.insertText", json!({"text": text}));
    }

    /// Makes the window so large, in CSS pixels.
    pub fn resize(&mut self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.command("Emulation.setDeviceMetricsOverride", size);
    }

    /// What the reader prefers: `light` or `dark`; and nothing that moves, so that each look sees how it is in the end.
    pub fn prefer(&mut self, scheme: &str) {
        let feature = json!([
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]);
        self.command("Emulation.setEmulatedMedia", json!({"features": feature}));
    }

    /// A picture of the whole page, as PNG.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn picture(&mut self, path: &Path) {
        let whole = json!({"format": "png", "captureBeyondViewport": true});
        let answer = self.command("Page.captureScreenshot", whole);
        let bytes = STANDARD.decode(answer["data"].as_str().unwrap_or_default());
        std::fs::write(path, bytes.expect("base64")).expect("a file");
    }

    /// Role and name of everything in the page that has a role for assistive technology.
    pub fn roles(&mut self) -> Vec<(String, String)> {
        let tree = self.command("Accessibility.getFullAXTree", json!({}));
        let nodes = tree["nodes"].as_array().cloned().unwrap_or_default();
        let seen = nodes.iter().filter(|n| n["ignored"] != true);
        let text = |v: &Value| v["value"].as_str().unwrap_or_default().to_owned();
        seen.map(|n| (text(&n["role"]), text(&n["name"]))).collect()
    }

    /// The addresses that were asked for since the start.
    pub fn asked(&mut self) -> Vec<String> {
        self.settle();
        let sent = self.of("Network.requestWillBeSent");
        let url = |e: &Value| e["request"]["url"].as_str().unwrap_or_default().to_owned();
        sent.iter().map(url).collect()
    }

    /// What the browser complained of: exceptions, the console, the policy of the page, answers that
    /// are errors.
    pub fn complaints(&mut self) -> Vec<String> {
        self.settle();
        let mut all = Vec::new();
        for e in self.of("Runtime.exceptionThrown") {
            all.push(e["exceptionDetails"].to_string());
        }
        for e in self.of("Runtime.consoleAPICalled") {
            all.push(e["args"].to_string());
        }
        for e in self.of("Log.entryAdded") {
            let entry = &e["entry"];
            all.push(format!("{}: {}", entry["text"], entry["url"]));
        }
        all
    }

    /// Takes in what happened until now.
    fn settle(&mut self) {
        self.evaluate("1");
    }

    fn of(&self, method: &str) -> Vec<Value> {
        let own = self.events.iter().filter(|e| e["method"] == method);
        own.map(|e| e["params"].clone()).collect()
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // Its other processes end with it.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
