//! Kinds `split` and `match`: bytes to records, patterns to files.

use std::fs;

use serde_json::{Value as Json, json};
use tailwater_config::{Errors, Section, parse};
use tailwater_receivers::filelog::config::FilelogConfig;
use tailwater_receivers::filelog::discover::Discovery;
use tailwater_receivers::filelog::logfs::OsLogFs;
use tailwater_receivers::input::frame::{FrameState, Frames, Input};
use tailwater_testkit::tempdir::TempDir;
use tailwater_testkit::time::system_unix_nanos;

use crate::case::{Case, Verdict};
use crate::records::base64_bytes;

fn decode(config: &Json) -> Result<FilelogConfig, String> {
    let node = parse(&config.to_string(), "vector").map_err(|e| e.to_string())?;
    let mut errors = Errors::new();
    let mut section = Section::new(&node, "filelog", &mut errors);
    let decoded = FilelogConfig::decode(&mut section);
    section.finish();
    errors.into_result(decoded).map_err(|e| e.to_string())
}

/// The configuration, or the verdict when building it already decides.
fn built(config: &Json, expect: &Json) -> Result<FilelogConfig, Result<(), String>> {
    let must_fail = expect["error"]["stage"] == "build";
    match decode(config) {
        Ok(_) if must_fail => Err(Err("it was built".to_owned())),
        Ok(config) => Ok(config),
        Err(_) if must_fail => Err(Ok(())),
        Err(e) => Err(Err(format!("not built: {e}"))),
    }
}

fn bytes_of(json: &Json) -> Vec<u8> {
    match json.get("base64").and_then(Json::as_str) {
        Some(text) => base64_bytes(text),
        None => {
            let text = json.as_str().or_else(|| json["text"].as_str());
            text.unwrap_or_default().as_bytes().to_vec()
        }
    }
}

/// Runs a case about cutting bytes into records.
pub fn run_split(case: &Case) -> Verdict {
    let mut config = case.json["config"].clone();
    // No option of the receiver: it decides by itself when the end of a file is the end.
    let flush = config
        .as_object_mut()
        .and_then(|options| options.remove("flush_at_eof")?.as_bool());
    config["include"] = json!(["unused"]);
    // Tokens are compared as they are before trimming.
    config["preserve_leading_whitespaces"] = json!(true);
    config["preserve_trailing_whitespaces"] = json!(true);
    let expect = &case.json["expect"];
    match built(&config, expect) {
        Ok(config) => split(&config, &bytes_of(&case.json["input"]), flush, expect).into(),
        Err(decided) => decided.into(),
    }
}

/// `flush`: whether what is left at the end is given out; if that is not said, as it is expected.
fn split(
    config: &FilelogConfig,
    input: &[u8],
    flush: Option<bool>,
    expect: &Json,
) -> Result<(), String> {
    let spec = config.frame_spec(config.charset);
    let (mut state, mut frames) = (FrameState::default(), Frames::default());
    let (mut got, mut from) = (Vec::new(), 0);
    loop {
        spec.frame(&mut state, &input[from..], Input::End, &mut frames);
        got.extend(
            frames
                .tokens
                .iter()
                .map(|t| input[from..][t.range()].to_vec()),
        );
        from += frames.consumed;
        if frames.consumed == 0 {
            break;
        }
    }
    // A record at the very end that is not ended by anything is given out after a while.
    let remainder = bytes_of(&expect["remainder"]);
    if flush.unwrap_or(input[from..] != remainder[..]) {
        spec.frame(&mut state, &input[from..], Input::Flush, &mut frames);
        got.extend(
            frames
                .tokens
                .iter()
                .map(|t| input[from..][t.range()].to_vec()),
        );
        from += frames.consumed;
    }
    // Empty tokens never become records, and are not made here.
    let want: Vec<Vec<u8>> = expect["tokens"]
        .as_array()
        .into_iter()
        .flatten()
        .map(bytes_of)
        .filter(|token| !token.is_empty())
        .collect();
    let same = got == want && input[from..] == remainder[..];
    let show = |tokens: &[Vec<u8>]| -> Vec<String> {
        tokens
            .iter()
            .map(|t| String::from_utf8_lossy(t).into_owned())
            .collect()
    };
    same.then_some(()).ok_or_else(|| {
        let rest = String::from_utf8_lossy(&input[from..]);
        format!(
            "got {:?} and {rest:?} left, want {:?}",
            show(&got),
            show(&want)
        )
    })
}

/// Runs a case about which files a receiver picks.
pub fn run_match(case: &Case) -> Verdict {
    let expect = &case.json["expect"];
    let dir = match TempDir::new("match") {
        Ok(dir) => dir,
        Err(e) => return Verdict::Failed(e.to_string()),
    };
    let mut config = case.json["config"].clone();
    for key in ["include", "exclude"] {
        for pattern in config[key].as_array_mut().into_iter().flatten() {
            let below = dir.join(pattern.as_str().unwrap_or_default());
            *pattern = below.to_string_lossy().into();
        }
    }
    match built(&config, expect) {
        Ok(config) => pick(config, &dir, &case.json).into(),
        Err(decided) => decided.into(),
    }
}

fn pick(config: FilelogConfig, dir: &TempDir, vector: &Json) -> Result<(), String> {
    for name in vector["input"]["files"].as_array().into_iter().flatten() {
        let path = dir.join(name.as_str().unwrap_or_default());
        fs::create_dir_all(path.parent().unwrap_or(dir.path())).map_err(|e| e.to_string())?;
        fs::write(path, "x\n").map_err(|e| e.to_string())?;
    }
    let discovery = Discovery {
        include: config.include,
        exclude: config.exclude,
        exclude_older_than: config.exclude_older_than,
        ordering: config.ordering,
    };
    let scan = discovery.scan(&OsLogFs, system_unix_nanos());
    let name = |path: &std::path::Path| {
        path.strip_prefix(dir.path())
            .unwrap_or(path)
            .to_string_lossy()
            .into_owned()
    };
    let got: Vec<String> = scan.files.iter().map(|f| name(&f.path)).collect();
    let want = vector["expect"]["files"].as_array().into_iter().flatten();
    let want: Vec<&str> = want.filter_map(Json::as_str).collect();
    (got == want)
        .then_some(())
        .ok_or_else(|| format!("got {got:?}, want {want:?}"))
}
