//! What the status page shows of files and of records, in a browser.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use serde_json::json;
use tailwater_testkit::loki::behaviour::Reach;
use tailwater_tests::page::{PageStand, browser_binary, view};

/// Guarantees that each file that is read is listed with how far it is, the one that is furthest behind first, and
/// that a receiver or a path leaves out the others.
#[test]
fn files_are_listed() {
    let Some(binary) = browser_binary() else {
        return;
    };
    let stand = PageStand::new("page-files");
    let agent = stand.start();
    let mut browser = stand.browser(&binary);
    let mut writer = stand.rig.writer(1, "app.log", |_| {});
    writer.write_lines(1_000).expect("written");
    stand.rig.wait_delivered(&agent);
    stand.rig.loki.set_reach(Reach::Refused).expect("a port");
    fs::write(stand.rig.logs("a.audit"), "one\ntwo\n").expect("a file");
    writer.write_lines(50).expect("written");
    view(&mut browser, "files");
    let paths =
        "[...document.querySelectorAll('#files-list tbody code')].map((c) => c.textContent)";
    let (app, audit) = (stand.rig.logs("app.log"), stand.rig.logs("a.audit"));
    browser.wait(&format!(
        "JSON.stringify({paths}) === {}",
        json!(json!([app, audit]).to_string())
    ));
    let row = "document.querySelector('#files-list tbody tr').innerText";
    let size = fs::metadata(&app).expect("a file").len();
    browser.wait(&format!(
        "{row}.includes('of {:.0} KiB')",
        size as f64 / 1024.0
    ));
    browser.wait("Number(document.querySelector('#files-list .done').getAttribute('width')) < 100");
    browser.evaluate(
        "(() => { const s = document.getElementById('files-receiver'); s.value = 'filelog/audit'; \
         s.dispatchEvent(new Event('change')); })()",
    );
    browser.wait(&format!(
        "JSON.stringify({paths}) === {}",
        json!(json!([audit]).to_string())
    ));
    browser.evaluate("document.getElementById('files-receiver').value = ''");
    browser.click("#files-path");
    browser.write(&stand.rig.logs("*.log").display().to_string());
    browser.key("Enter", false);
    browser.wait(&format!(
        "JSON.stringify({paths}) === {}",
        json!(json!([app]).to_string())
    ));
    stand.rig.loki.set_reach(Reach::Up).expect("a port");
    stand.rig.wait_delivered(&agent);
    browser.wait("document.querySelector('#files-list tbody tr').innerText.includes('none')");
    browser.wait("document.querySelector('#files-list .done').getAttribute('width') === '100'");
    if let Some(pictures) = std::env::var_os("TAILWATER_PICTURES") {
        browser.picture(&PathBuf::from(pictures).join("files-full.png"));
    }
    stand.finish(browser, agent, &[]);
}

/// Guarantees that records are shown as they pass, as text and nothing else, from a node that was chosen in the
/// graph; and that nothing is taken any more when the view is left.
#[test]
fn a_tap_shows_records_until_it_is_left() {
    let Some(binary) = browser_binary() else {
        return;
    };
    let stand = PageStand::new("page-tap");
    let agent = stand.start();
    let mut browser = stand.browser(&binary);
    browser.click("#drawing [data-key=\"exporter debug (logs)\"]");
    browser.wait("document.activeElement.id === 'details-title'");
    browser.click("[data-key=\"tap in\"]");
    browser.wait("document.getElementById('tap-node')?.value === 'exporter debug (logs)'");
    assert_eq!(
        browser.text("document.getElementById('tap-side').value"),
        "in"
    );
    browser.click("#tap-start");
    browser.wait("document.getElementById('tap-start').innerText === 'Stop'");
    let line = "<img src=x onerror=alert(1)> \"hello\" & <b>more</b>";
    // It passes when the tap is open, which is not told before something passes.
    browser.wait("document.getElementById('tap-said').innerText.includes('0 shown')");
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(stand.rig.logs("a.audit"));
    let mut log = log.expect("a file");
    for _ in 0..200 {
        writeln!(log, "{line}").expect("written");
        if browser.evaluate("document.querySelector('#tap-records li') !== null") == true {
            break;
        }
    }
    browser.wait("document.querySelector('#tap-records li')");
    assert_eq!(
        browser.text("document.querySelector('#tap-records pre').innerText"),
        line
    );
    let inside = "document.querySelectorAll('#tap-records img, #tap-records b').length";
    assert_eq!(browser.evaluate(inside), 0);
    let edge = browser.text("document.querySelector('#tap-records li').innerText");
    assert!(edge.contains("exporter debug (logs)"), "{edge}");
    browser.wait("/[1-9][0-9.k]* passed/.test(document.getElementById('tap-said').innerText)");
    view(&mut browser, "graph");
    browser.wait("document.getElementById('tap-said').textContent.includes('stopped')");
    view(&mut browser, "tap");
    assert_eq!(
        browser.text("document.getElementById('tap-start').innerText"),
        "Start"
    );
    stand.finish(browser, agent, &[]);
}
