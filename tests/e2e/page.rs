//! The status page in a browser: what it shows is what runs, what it does is done, and it stays by itself.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

use serde_json::json;
use tailwater_testkit::loki::behaviour::Reach;
use tailwater_tests::admin::Way;
use tailwater_tests::chromium::Chromium;
use tailwater_tests::page::{PageStand, TOKEN, browser_binary, node, view};

const VIEWS: [&str; 5] = ["graph", "files", "generations", "configuration", "tap"];

/// The bytes of an answer to a request as it is written here.
fn raw(address: SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.write_all(head.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Guarantees that the page is had without the token, which gives nothing else; that it is kept from loading
/// anything, and from others; and that pages of others get nothing.
#[test]
fn the_page_is_for_everybody_and_the_rest_is_not() {
    let stand = PageStand::new("page-served");
    let agent = stand.start();
    let anybody = Way::Endpoint(stand.address, None);
    for (way, token) in [(&anybody, "needed"), (&stand.socket, "none")] {
        let page = way.get("/");
        assert_eq!(page.status, 200);
        assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
        assert!(page.body.contains(&format!("data-token=\"{token}\"")));
        let script = way.get("/page/main.js");
        assert_eq!(
            (script.status, script.header("content-type")),
            (200, "text/javascript; charset=utf-8")
        );
        for reply in [&page, &script] {
            let policy = reply.header("content-security-policy");
            assert!(
                policy.starts_with("default-src 'none'; script-src 'self';"),
                "{policy}"
            );
            assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"));
            assert_eq!(reply.header("x-content-type-options"), "nosniff");
            assert_eq!(reply.header("referrer-policy"), "no-referrer");
            assert_eq!(reply.header("cache-control"), "no-store");
        }
        assert!(
            !page.body.contains("filelog"),
            "it holds nothing of what runs"
        );
    }
    for path in [
        "/v1/graph",
        "/page/nothing.js",
        "/page",
        "/v1/generations/1",
    ] {
        assert_eq!(anybody.get(path).status, 401, "{path}");
    }
    assert_eq!(anybody.ask("POST", "/", &[], "").status, 401);
    for way in [&stand.way, &stand.socket] {
        for (site, path, status) in [
            ("cross-site", "/v1/graph", 403),
            ("same-site", "/v1/graph", 403),
            ("same-origin", "/v1/graph", 200),
            ("none", "/v1/graph", 200),
            ("cross-site", "/", 200),
        ] {
            let reply = way.ask("GET", path, &[("Sec-Fetch-Site", site)], "");
            assert_eq!(reply.status, status, "{site} {path}: {}", reply.body);
        }
        let origin = [("Origin", "http://elsewhere.example")];
        assert_eq!(way.ask("POST", "/v1/reload", &origin, "").status, 403);
        assert_eq!(
            way.get("/v1/graph").header("x-content-type-options"),
            "nosniff"
        );
    }
    for (host, path, status) in [
        ("elsewhere.example", "/", 421),
        ("elsewhere.example", "/v1/graph", 421),
        ("127.0.0.1.elsewhere.example:80", "/v1/graph", 421),
        ("[::1]:80", "/v1/graph", 200),
    ] {
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
        );
        let answer = raw(stand.address, &head);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{host} {path}: {answer}"
        );
    }
    assert_eq!(stand.way.get("/v1/generations").json()["generation"], 1);
    agent.stop_clean();
}

/// Guarantees that each generation that is kept says what its configuration was, without secrets.
#[test]
fn each_generation_says_what_it_was() {
    let mut stand = PageStand::new("page-generation");
    stand.config["exporters"]["loki"]["headers"] = json!({"X-Key": "hush-hush"});
    let agent = stand.start();
    let other = stand.with_timeout(&agent, "31ms");
    let reply = stand.way.ask("PUT", "/v1/config", &[], &other);
    assert_eq!(reply.status, 200, "{}", reply.body);
    for way in [&stand.way, &stand.socket] {
        for (number, timeout) in [(1, "100ms"), (2, "31ms")] {
            let reply = way.get(&format!("/v1/generations/{number}"));
            assert_eq!(
                (reply.status, reply.header("content-type")),
                (200, "application/yaml")
            );
            assert!(
                reply.body.contains(&format!("timeout: {timeout}")),
                "{}",
                reply.body
            );
            assert!(!reply.body.contains("hush") && reply.body.contains("[REDACTED]"));
        }
        assert_eq!(
            way.get("/v1/generations/2").body,
            way.get("/v1/config").body
        );
        let reply = way.get("/v1/generations/3");
        assert_eq!(reply.status, 404);
        assert!(reply.body.contains("there is: 1, 2"), "{}", reply.body);
        assert_eq!(way.ask("DELETE", "/v1/generations/1", &[], "").status, 405);
    }
    agent.stop_clean();
}

/// Guarantees that the graph shows each node and edge that there is, and what flows there.
#[test]
fn the_graph_shows_what_flows() {
    let Some(binary) = browser_binary() else {
        return;
    };
    let stand = PageStand::new("page-graph");
    let agent = stand.start();
    let live = stand.live();
    let mut browser = stand.browser(&binary);
    let graph = stand.way.get("/v1/graph").json();
    for seen in graph["nodes"].as_array().expect("a list") {
        let key = seen["key"].as_str().expect("a text");
        let shown = browser.text(&format!("{}?.innerText", node(key)));
        let id = seen["id"].as_str().expect("a text");
        assert!(shown.contains(id), "{key}: {shown}");
        let row = format!("document.querySelector('#nodes [data-key=\"row {key}\"]') !== null");
        assert_eq!(browser.evaluate(&row), true, "{key} is in the table");
    }
    for edge in graph["edges"].as_array().expect("a list") {
        let end = |end: &str| edge[end].as_str().expect("a text").to_owned();
        let name = format!("{} -> {}", end("from"), end("to"));
        let drawn = format!("document.querySelectorAll('path[data-edge=\"{name}\"]').length");
        assert_eq!(browser.evaluate(&drawn), 1, "{name}");
    }
    // 200 lines a second come in, about.
    let rates = "[...document.querySelectorAll('.rate')].map((r) => r.textContent)";
    browser.wait(&format!(
        "{rates}.some((r) => /^(1[5-9]|2[0-5])\\d/.test(r))"
    ));
    for (edge, how) in [
        ("receiver filelog (logs) -> pipeline logs", "moving"),
        (
            "receiver filelog/audit (logs) -> pipeline logs/audit",
            "still",
        ),
    ] {
        browser.wait(&format!(
            "document.querySelector('path[data-edge=\"{edge}\"].{how}')"
        ));
    }
    live.stop().expect("written");
    stand.rig.wait_delivered(&agent);
    stand.finish(browser, agent, &[]);
}

/// Guarantees that a node in trouble has another shape and says why, there and back, and that this is said to
/// who does not see it.
#[test]
fn trouble_has_another_shape() {
    let Some(binary) = browser_binary() else {
        return;
    };
    let stand = PageStand::new("page-trouble");
    let agent = stand.start();
    let live = stand.live();
    let mut browser = stand.browser(&binary);
    let exporter = node("exporter loki (logs)");
    let sign = format!("{exporter}.querySelector('svg path').getAttribute('d')");
    let round = browser.text(&sign);
    browser.evaluate(
        "heard = []; place = document.getElementById('said'); \
         new MutationObserver(() => heard.push(place.textContent)).observe(place, {childList: true})",
    );
    let heard = |state| format!("heard.some((h) => h.includes('exporter loki (logs): {state}'))");
    stand.rig.loki.set_reach(Reach::Refused).expect("a port");
    browser.wait(&format!("{exporter}.dataset.state === 'in trouble'"));
    assert_ne!(browser.text(&sign), round);
    browser.wait(&format!("{exporter}.innerText.includes('in trouble')"));
    browser.wait(&heard("in trouble"));
    browser.wait("document.getElementById('health').innerText.includes('In trouble')");
    browser.wait("document.getElementById('reasons').innerText.includes('nothing was accepted')");
    browser.click("#drawing [data-key=\"exporter loki (logs)\"]");
    browser.wait("document.getElementById('details').innerText.includes('nothing was accepted')");
    browser.wait("document.activeElement.id === 'details-title'");
    stand.rig.loki.set_reach(Reach::Up).expect("a port");
    browser.wait(&format!("{exporter}.dataset.state === 'running'"));
    assert_eq!(browser.text(&sign), round);
    browser.wait(&heard("running"));
    browser.wait("document.getElementById('reasons').hidden");
    live.stop().expect("written");
    stand.rig.wait_delivered(&agent);
    stand.finish(browser, agent, &[]);
}

/// Has the configuration in force in the field.
fn load(browser: &mut Chromium) {
    view(browser, "configuration");
    browser.click("#load");
    browser.wait("document.getElementById('text').value.includes('timeout: 100ms')");
}

/// Writes something else in the place of a part of the field.
fn edit(browser: &mut Chromium, from: &str, to: &str) {
    let (from, to) = (json!(from), json!(to));
    browser.evaluate(&format!(
        "(() => {{ const t = document.getElementById('text'); t.value = t.value.replace({from}, {to}); \
         t.dispatchEvent(new Event('input', {{bubbles: true}})); }})()"
    ));
    assert_eq!(
        browser.evaluate("document.getElementById('apply').disabled"),
        true
    );
}

/// Shows a plan that can be carried out.
fn plan(browser: &mut Chromium) {
    browser.click("#plan-it");
    browser.wait("!document.getElementById('apply').disabled");
}

/// Guarantees that a plan is shown before anything is done, that it is the plan of the text as it is, and that
/// what is applied is that.
#[test]
fn what_is_planned_is_applied() {
    let Some(binary) = browser_binary() else {
        return;
    };
    let stand = PageStand::new("page-plan");
    let agent = stand.start();
    let mut browser = stand.browser(&binary);
    load(&mut browser);
    edit(&mut browser, "timeout: 100ms", "timeout: 33ms");
    plan(&mut browser);
    let planned = browser.text("document.querySelector('#plan .changes').innerText");
    assert!(planned.contains("processor batch in logs"), "{planned}");
    let added = browser.text("document.querySelector('#plan ins').innerText");
    let removed = browser.text("document.querySelector('#plan del').innerText");
    assert!(added.contains("timeout: 33ms") && removed.contains("timeout: 100ms"));
    assert_eq!(stand.generation(), 1, "nothing was done");
    edit(&mut browser, "timeout: 33ms", "timeout: 32ms");
    plan(&mut browser);
    browser.click("#apply");
    browser.wait("document.getElementById('plan').innerText.includes('Generation 2 is in force')");
    assert_eq!(stand.generation(), 2);
    assert!(stand.way.get("/v1/config").body.contains("timeout: 32ms"));
    browser.wait("document.getElementById('generation').textContent === '2'");
    stand.finish(browser, agent, &[]);
}

/// Guarantees that what somebody else has changed since the plan is not written over, and that mistakes are shown
/// with a way to their places.
#[test]
fn what_is_refused_is_told() {
    let Some(binary) = browser_binary() else {
        return;
    };
    let stand = PageStand::new("page-refused");
    let agent = stand.start();
    let mut browser = stand.browser(&binary);
    load(&mut browser);
    edit(&mut browser, "timeout: 100ms", "timeout: 31ms");
    plan(&mut browser);
    let other = stand.with_timeout(&agent, "77ms");
    assert_eq!(stand.way.ask("PUT", "/v1/config", &[], &other).status, 200);
    browser.click("#apply");
    browser.wait("document.getElementById('plan').innerText.includes('Somebody else')");
    assert!(stand.way.get("/v1/config").body.contains("timeout: 77ms"));
    edit(&mut browser, "processors:\n", "processorz:\n");
    browser.click("#plan-it");
    browser.wait("document.querySelector('#plan [role=alert] li')");
    let reasons = browser.text("document.querySelector('#plan [role=alert]').innerText");
    assert!(reasons.contains("processorz"), "{reasons}");
    browser.click("#plan li button");
    let marked = "(() => { const t = document.activeElement; \
                  return t.value.slice(t.selectionStart, t.selectionEnd); })()";
    assert!(browser.text(marked).starts_with("processorz"));
    assert_eq!(stand.generation(), 2);
    stand.finish(browser, agent, &["status of 412", "status of 422"]);
}

/// Guarantees that the difference of two generations is shown, and that one goes back only after having been asked.
#[test]
fn one_goes_back_to_what_was() {
    let Some(binary) = browser_binary() else {
        return;
    };
    let stand = PageStand::new("page-back");
    let agent = stand.start();
    let mut browser = stand.browser(&binary);
    view(&mut browser, "generations");
    let other = stand.with_timeout(&agent, "32ms");
    assert_eq!(stand.way.ask("PUT", "/v1/config", &[], &other).status, 200);
    browser.wait("document.querySelector('[data-key=\"back 1\"]')");
    browser.click("[data-key=\"diff 2\"]");
    browser.wait("document.querySelector('#compared ins')?.innerText.includes('timeout: 32ms')");
    let removed = browser.text("document.querySelector('#compared del').innerText");
    assert!(removed.contains("timeout: 100ms"), "{removed}");
    browser.click("[data-key=\"back 1\"]");
    browser.wait("document.querySelector('dialog[open] .changes')");
    browser.key("Escape", false);
    browser.wait("!document.querySelector('dialog[open]')");
    assert_eq!(stand.generation(), 2, "it was not wanted");
    browser.click("[data-key=\"back 1\"]");
    let added = "document.querySelector('dialog[open] ins')?.innerText";
    browser.wait(&format!("{added}?.includes('timeout: 100ms')"));
    browser.click("dialog .main");
    let said = "document.getElementById('generations-said').innerText";
    browser.wait(&format!("{said}.includes('Generation 3 is in force')"));
    let of = |number| stand.way.get(&format!("/v1/generations/{number}")).body;
    assert_eq!((stand.generation(), of(3)), (3.into(), of(1)));
    browser.wait("document.querySelector('.current h2').innerText.includes('Generation 3')");
    stand.finish(browser, agent, &[]);
}

/// Guarantees that a wrong token is said to be wrong, that the right one is kept in this tab alone, and that it is
/// forgotten on demand.
#[test]
fn the_token_is_asked_for_and_forgotten() {
    let Some(binary) = browser_binary() else {
        return;
    };
    let stand = PageStand::new("page-token");
    let agent = stand.start();
    let mut browser = Chromium::start(&binary);
    browser.open(&format!("http://{}/", stand.address));
    browser.wait("document.activeElement?.id === 'token'");
    browser.write("not-the-token-at-all");
    browser.key("Enter", false);
    browser.wait("document.getElementById('enter-error').innerText.includes('not the right one')");
    let kept = "JSON.stringify([sessionStorage.length, localStorage.length, document.cookie])";
    assert_eq!(browser.text(kept), "[0,0,\"\"]");
    browser.write(TOKEN);
    browser.key("Enter", false);
    browser.wait("document.querySelector('.node')");
    assert_eq!(browser.text(kept), "[1,0,\"\"]");
    browser.click("#leave");
    browser
        .wait("document.activeElement.id === 'token' && document.getElementById('graph').hidden");
    assert_eq!(browser.text(kept), "[0,0,\"\"]");
    stand.finish(browser, agent, &["status of 401"]);
}

/// Presses Tab, with shift if it is said, until the focus is where it is wanted; what was passed.
fn tab_to(browser: &mut Chromium, wanted: &str, shift: bool) -> Vec<String> {
    const FOCUS: &str = "document.activeElement.dataset.key \
                         ?? document.activeElement.id + '|' + document.activeElement.innerText";
    let mut passed = Vec::new();
    for _ in 0..80 {
        browser.key("Tab", shift);
        passed.push(browser.text(FOCUS));
        if passed.last().is_some_and(|p| p == wanted) {
            return passed;
        }
    }
    panic!("the focus does not come to {wanted}: {passed:?}");
}

/// Guarantees that everything is reached by the keyboard alone, in the order of what flows, and that the focus
/// stays where it is while the page looks again.
#[test]
fn the_keyboard_reaches_everything() {
    let Some(binary) = browser_binary() else {
        return;
    };
    let stand = PageStand::new("page-keyboard");
    let agent = stand.start();
    let mut browser = stand.browser(&binary);
    // As somebody comes who has been here before.
    browser.evaluate("leaving = true");
    browser.open(&format!("http://{}/", stand.address));
    browser.wait("typeof leaving === 'undefined' && document.querySelector('.node')");
    let last = "exporter loki (logs)";
    let passed = tab_to(&mut browser, last, false);
    let place = |name: &&str| {
        let found = passed.iter().position(|p| p.contains(name));
        found.unwrap_or_else(|| panic!("no {name}: {passed:?}"))
    };
    let order = [
        "skip|",
        "live|",
        "leave|",
        "|Graph",
        "|Tap",
        "receiver filelog (logs)",
        "pipeline logs",
        "processor resource in logs",
        last,
    ];
    let places: Vec<usize> = order.iter().map(place).collect();
    assert!(places.is_sorted(), "{passed:?}");
    browser.key("Enter", false);
    browser.wait("document.activeElement.id === 'details-title'");
    browser.key("Tab", false);
    browser.key("Enter", false);
    let back = format!("document.activeElement.dataset.key === '{last}'");
    browser.wait(&format!(
        "document.getElementById('details').hidden && {back}"
    ));
    let looks = "performance.getEntriesByType('resource').filter((e) => e.name.endsWith('/v1/graph')).length";
    browser.evaluate(&format!("looks = {looks}"));
    browser.wait(&format!("{looks} > looks + 1"));
    assert_eq!(browser.evaluate(&back), true);
    stand.finish(browser, agent, &[]);
}

/// Guarantees that a configuration is written, planned and applied without a mouse, and that who does so is led
/// to what comes of it.
#[test]
fn a_change_is_made_by_the_keyboard() {
    let Some(binary) = browser_binary() else {
        return;
    };
    let stand = PageStand::new("page-keys");
    let agent = stand.start();
    let mut browser = stand.browser(&binary);
    tab_to(&mut browser, "|Configuration", true);
    browser.key("Enter", false);
    browser.wait("document.activeElement.id === 'configuration-title'");
    tab_to(&mut browser, "text|", false);
    browser.write(&stand.with_timeout(&agent, "29ms"));
    browser.key("Tab", false);
    browser.key(" ", false);
    let planned = "document.activeElement.id === 'plan-title'";
    browser.wait(&format!(
        "{planned} && !document.getElementById('apply').disabled"
    ));
    tab_to(&mut browser, "apply|Apply", true);
    browser.key("Enter", false);
    browser.wait("document.getElementById('plan').innerText.includes('Generation 2 is in force')");
    browser.wait(planned);
    assert!(stand.way.get("/v1/config").body.contains("timeout: 29ms"));
    stand.finish(browser, agent, &[]);
}

/// Roles of what is used, or is a part of its own: nothing of them without a name.
const NAMED: [&str; 9] = [
    "button",
    "link",
    "textbox",
    "searchbox",
    "combobox",
    "checkbox",
    "table",
    "dialog",
    "navigation",
];

/// Expects that what is shown fits into `width`, and that each part of it has a name.
fn expect_usable(browser: &mut Chromium, width: u32, what: &str) {
    let wide = browser.evaluate("document.documentElement.scrollWidth");
    assert!(
        wide.as_u64().is_some_and(|w| w <= width.into()),
        "{what}: {wide}"
    );
    for (role, name) in browser.roles() {
        let named = !NAMED.contains(&&*role) || !name.trim().is_empty();
        assert!(named, "{what}: a {role} without a name");
    }
}

/// Guarantees that the page is of use in light and dark and on a small screen, and to who is told what is where.
/// Pictures are kept where `TAILWATER_PICTURES` says, if it does.
#[test]
fn it_is_legible_in_light_and_dark_and_on_a_phone() {
    let Some(binary) = browser_binary() else {
        return;
    };
    let stand = PageStand::new("page-looks");
    let kept = std::env::var_os("TAILWATER_PICTURES");
    let pictures = kept.map_or_else(|| stand.rig.path("pictures"), PathBuf::from);
    fs::create_dir_all(&pictures).expect("a directory");
    let agent = stand.start();
    let live = stand.live();
    let mut browser = stand.browser(&binary);
    browser.wait("document.querySelector('.rate')");
    let mut papers = Vec::new();
    for (width, scheme) in [
        (1366, "light"),
        (1366, "dark"),
        (360, "light"),
        (360, "dark"),
        (800, "light"),
        (1000, "dark"),
    ] {
        browser.resize(width, 800);
        browser.prefer(scheme);
        for name in VIEWS {
            view(&mut browser, name);
            if name == "graph" {
                // It is drawn for the room that there is, and names are in lines.
                let fits =
                    "document.querySelector('.sheet').getBoundingClientRect().right < innerWidth";
                browser.wait(fits);
                browser.wait("document.querySelector('tbody th').offsetWidth > 100");
            }
            let what = format!("{name}-{width}-{scheme}");
            expect_usable(&mut browser, width, &what);
            browser.picture(&pictures.join(format!("{what}.png")));
        }
        papers.push(browser.text("getComputedStyle(document.documentElement).backgroundColor"));
    }
    assert_ne!(papers[0], papers[1], "dark is another paper");
    assert_eq!(papers[0], papers[2]);
    let roles: Vec<String> = browser.roles().into_iter().map(|(role, _)| role).collect();
    for landmark in ["banner", "navigation", "main", "heading", "status"] {
        let there = roles.iter().any(|role| role == landmark);
        assert!(there, "no {landmark}: {roles:?}");
    }
    live.stop().expect("written");
    stand.finish(browser, agent, &[]);
}

/// Guarantees that no rule of accessibility of axe-core is broken: contrast, names, roles, order of headings and the
/// like, in each view, in light and dark, on a small screen, and where it asks before something is done.
#[test]
fn no_rule_of_accessibility_is_broken() {
    const BROKEN: &str = "axe.run({resultTypes: ['violations']}).then((r) => JSON.stringify( \
                          r.violations.map((v) => [v.id, v.nodes.map((n) => n.html.slice(0, 200))])))";
    let Some(binary) = browser_binary() else {
        return;
    };
    let Some(axe) = std::env::var_os("TAILWATER_AXE") else {
        println!(
            "SKIPPED: the rules of accessibility of axe-core: TAILWATER_AXE names no axe.min.js"
        );
        return;
    };
    let axe = fs::read_to_string(axe).expect("axe.min.js");
    let stand = PageStand::new("page-axe");
    let agent = stand.start();
    let mut browser = stand.browser(&binary);
    browser.evaluate(&format!("{axe};0"));
    let other = stand.with_timeout(&agent, "32ms");
    assert_eq!(stand.way.ask("PUT", "/v1/config", &[], &other).status, 200);
    browser.click("#drawing [data-key=\"exporter loki (logs)\"]");
    for (width, scheme) in [(1366, "light"), (1366, "dark"), (360, "light")] {
        browser.resize(width, 800);
        browser.prefer(scheme);
        for name in VIEWS {
            view(&mut browser, name);
            assert_eq!(browser.text(BROKEN), "[]", "{name} at {width}, {scheme}");
        }
        view(&mut browser, "generations");
        browser.wait("document.querySelector('#compared ins')");
        browser.click("[data-key=\"back 1\"]");
        browser.wait("document.querySelector('dialog[open] ins')");
        assert_eq!(
            browser.text(BROKEN),
            "[]",
            "the question at {width}, {scheme}"
        );
        browser.key("Escape", false);
    }
    browser.click("#leave");
    browser.wait("document.activeElement.id === 'token'");
    assert_eq!(browser.text(BROKEN), "[]", "the way in");
    stand.finish(browser, agent, &[]);
}

/// Guarantees that the page says when the agent is gone, and goes on by itself with the one that comes in its place.
#[test]
fn the_page_outlives_the_agent() {
    let Some(binary) = browser_binary() else {
        return;
    };
    let stand = PageStand::new("page-again");
    let agent = stand.start();
    let mut browser = stand.browser(&binary);
    let other = stand.with_timeout(&agent, "32ms");
    assert_eq!(stand.way.ask("PUT", "/v1/config", &[], &other).status, 200);
    let generation = "document.getElementById('generation').textContent";
    browser.wait(&format!("{generation} === '2'"));
    view(&mut browser, "generations");
    browser.wait("document.querySelectorAll('.generations > li').length === 2");
    agent.stop_clean();
    browser.wait("document.getElementById('lost').innerText.includes('No answer')");
    let agent = stand.start();
    browser.wait(&format!(
        "document.getElementById('lost').hidden && {generation} === '3'"
    ));
    browser.wait("document.querySelectorAll('.generations > li').length === 3");
    browser.click("#live");
    assert_eq!(
        browser.evaluate("document.getElementById('paused').hidden"),
        false
    );
    assert_eq!(stand.way.ask("PUT", "/v1/config", &[], &other).status, 200);
    browser.click("#live");
    browser.wait(&format!("{generation} === '4'"));
    stand.finish(browser, agent, &["net::ERR_"]);
}

/// What is computed in the page, against what must hold of it; each gives how much it tried.
const COMPUTED: &str = include_str!("page.js");

/// Guarantees what is computed in the page: differences, the drawing, rates, numbers.
#[test]
fn what_the_page_computes_is_right() {
    let Some(binary) = browser_binary() else {
        return;
    };
    let stand = PageStand::new("page-computed");
    let agent = stand.start();
    let mut browser = stand.browser(&binary);
    for what in ["differences", "drawing", "rates", "numbers"] {
        let tried = browser.evaluate(&format!(
            "(() => {{ {COMPUTED}; return computed.{what}(); }})()"
        ));
        assert!(tried.as_u64().is_some_and(|n| n > 0), "{what}: {tried}");
    }
    stand.finish(browser, agent, &[]);
}
