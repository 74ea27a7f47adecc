//! Guarantee: what the collector and Promtail stored is read in each of its forms; damage of any
//! kind is an error or a note, never a panic, a loop or a wrong offset.

use proptest::prelude::*;

use super::bolt_writer::{Layout, database};
use super::*;

const KEY: &[u8] = b"file_input.knownFiles";

const JSON: &str = concat!(
    "2\n",
    r#"{"Fingerprint":{"first_bytes":"aGVsbG8gd29ybGQ="},"Offset":1234,"RecordNum":56,"#,
    r#""FileAttributes":{"log.file.name":"a.log","HeaderAttributes":{"app":"x"}},"#,
    r#""HeaderFinalized":true,"FlushState":{"LastDataChange":"2024-01-02T03:04:05.1Z","#,
    r#""LastDataLength":3},"TokenLenState":{"MinimumLength":0},"FileType":".gz","#,
    r#""TruncateSkipping":true}"#,
    "\n",
    r#"{"Fingerprint":{"first_bytes":"Yg=="},"Offset":7}"#,
    "\n",
);

fn offset(first_bytes: &str, offset: u64) -> ImportedOffset {
    ImportedOffset {
        operator_id: "file_input".to_owned(),
        fingerprint_first_bytes: first_bytes.into(),
        offset,
        ..ImportedOffset::default()
    }
}

fn read(entries: &[(&[u8], &[u8])]) -> Result<Imported<ImportedOffset>, ImportError> {
    read_file_storage(&database(4096, Layout::Leaf, b"default", entries))
}

/// A protobuf field with a length, or (without content) a number.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    assert!(content.len() < 128);
    [&[number << 3 | 2, content.len() as u8], content].concat()
}

fn protobuf_entry(first_bytes: &[u8], offset_varint: &[u8]) -> Vec<u8> {
    let flush = [0x08, 5, 0x10, 3];
    let message = [
        field(1, &field(1, first_bytes)),
        [&[2 << 3], offset_varint].concat(),
        vec![3 << 3, 9],
        field(4, br#"{"app":"x"}"#),
        vec![5 << 3, 1],
        field(6, &flush),
        field(7, &[0x08, 1]),
        field(8, b".gz"),
        // Fields of a later version: fixed 64 and 32, a number.
        [
            &[9 << 3 | 1][..],
            &[0; 8],
            &[10 << 3 | 5],
            &[0; 4],
            &[11 << 3, 1],
        ]
        .concat(),
    ];
    field(1, &message.concat())
}

#[test]
fn the_json_form_is_read_in_every_layout_and_page_size() {
    let want = vec![
        ImportedOffset {
            record_number: 56,
            header_done: true,
            file_type: ".gz".to_owned(),
            skips_line: true,
            attributes: serde_json::from_str(r#"{"log.file.name":"a.log","app":"x"}"#).unwrap(),
            ..offset("hello world", 1234)
        },
        offset("b", 7),
    ];
    for page_bytes in [1024, 4096, 16384, 65536] {
        for layout in [Layout::Inline, Layout::Leaf, Layout::Branch] {
            let entries = [(KEY, JSON.as_bytes()), (b"file_input.other", b"x")];
            let file = database(page_bytes, layout, b"default", &entries);
            let imported = read_file_storage(&file).unwrap();
            assert_eq!(
                imported,
                Imported {
                    files: want.clone(),
                    notes: Vec::new()
                }
            );
        }
    }
}

#[test]
fn the_protobuf_form_is_read() {
    let value = [
        protobuf_entry(b"one", &[0xD2, 0x09]),
        protobuf_entry(b"two", &[0]),
    ]
    .concat();
    let files = read(&[(KEY, &value)]).unwrap().files;
    let want = |first_bytes, n| ImportedOffset {
        record_number: 9,
        header_done: true,
        file_type: ".gz".to_owned(),
        attributes: serde_json::from_str(r#"{"app":"x"}"#).unwrap(),
        ..offset(first_bytes, n)
    };
    assert_eq!(files, [want("one", 1234), want("two", 0)]);
    assert!(
        read(&[(KEY, b"")]).unwrap().files.is_empty(),
        "no files: an empty message"
    );
    assert!(
        read(&[(KEY, b"0\n")]).unwrap().files.is_empty(),
        "no files in JSON"
    );
}

#[test]
fn values_larger_than_a_page_and_many_files_are_read() {
    let mut json = String::from("500\n");
    for i in 0..500 {
        json += &format!(
            r#"{{"Fingerprint":{{"first_bytes":"{:04}"}},"Offset":{i}}}"#,
            i
        );
        json += "\n";
    }
    let imported = read(&[(KEY, json.as_bytes())]).unwrap();
    assert_eq!(imported.files.len(), 500);
    assert!(
        imported
            .files
            .iter()
            .enumerate()
            .all(|(i, f)| f.offset == i as u64)
    );
}

#[test]
fn the_archive_adds_what_the_newest_polls_do_not_have() {
    let entry = |b64: &str, n: u64| {
        format!("1\n{{\"Fingerprint\":{{\"first_bytes\":\"{b64}\"}},\"Offset\":{n}}}\n")
    };
    let values = [
        entry("YQ==", 5),
        entry("YQ==", 9),
        entry("Yg==", 3),
        entry("Yg==", 4),
    ];
    let keys: [&[u8]; 4] = [
        KEY,
        b"file_input.knownFiles0",
        b"file_input.knownFiles1",
        b"file_input.knownFiles2",
    ];
    let mut entries: Vec<_> = keys
        .into_iter()
        .zip(values.iter().map(|v| v.as_bytes()))
        .collect();
    entries.push((b"file_input.knownFiles3", b"{broken"));
    entries.push((b"file_input.knownFilesArchiveIndex", b"3\n"));
    entries.push((b"other_id.knownFiles", values[3].as_bytes()));
    let imported = read(&entries).unwrap();
    let other = ImportedOffset {
        operator_id: "other_id".to_owned(),
        ..offset("b", 4)
    };
    let archived = ImportedOffset {
        archived: true,
        ..offset("b", 4)
    };
    assert_eq!(imported.files, [offset("a", 5), other, archived]);
    assert_eq!(imported.notes.len(), 1);
    assert!(
        imported.notes[0].contains("knownFiles3"),
        "{:?}",
        imported.notes
    );
}

#[test]
fn what_makes_no_sense_is_named() {
    let json = |entry: &str| format!("1\n{entry}\n");
    for (entry, want) in [
        (r#"{"Offset":1}"#, "no fingerprint"),
        (
            r#"{"Fingerprint":{"first_bytes":""},"Offset":1}"#,
            "fingerprint is empty",
        ),
        (
            r#"{"Fingerprint":{"first_bytes":"a*=="},"Offset":1}"#,
            "not base64",
        ),
        (
            r#"{"Fingerprint":{"first_bytes":"YQ=="},"Offset":-1}"#,
            "Offset is -1",
        ),
        (
            r#"{"Fingerprint":{"first_bytes":"YQ=="},"FileAttributes":3}"#,
            "FileAttributes is 3",
        ),
    ] {
        let imported = read(&[(KEY, json(entry).as_bytes())]).unwrap();
        assert!(imported.files.is_empty());
        assert!(imported.notes[0].contains(want), "{:?}", imported.notes);
    }
    let negative = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01];
    let imported = read(&[(KEY, &protobuf_entry(b"a", &negative))]).unwrap();
    assert!(
        imported.notes[0].contains("negative: -1"),
        "{:?}",
        imported.notes
    );

    for (value, want) in [
        (&b"2\n{}"[..], "has 1 entries and says 2"),
        (b"1\n{", "JSON of entry 0"),
        (b"{}", "neither JSON nor protobuf"),
        (b"1.5 {}", "does not begin with a count"),
        (b"\x0a\x05abc", "cut short"),
    ] {
        let message = read(&[(KEY, value)]).unwrap_err().to_string();
        assert!(
            message.contains("file_input.knownFiles") && message.contains(want),
            "{message}"
        );
    }
    let message = read(&[(b"a", b"b")]).unwrap_err().to_string();
    assert!(message.contains("none of its 1 keys"), "{message}");
    let file = database(4096, Layout::Leaf, b"another", &[(KEY, JSON.as_bytes())]);
    assert!(matches!(
        read_file_storage(&file),
        Err(ImportError::NoFileState(_))
    ));
    assert!(matches!(
        read_file_storage(b"hello"),
        Err(ImportError::NotBolt(_))
    ));
}

#[test]
fn the_newest_whole_meta_page_counts() {
    let mut file = database(4096, Layout::Leaf, b"default", &[(KEY, JSON.as_bytes())]);
    let meta = file[..4096].to_vec();
    file[20] ^= 1;
    let message = read_file_storage(&file).unwrap_err().to_string();
    assert!(
        message.contains("page 99"),
        "the older meta leads there: {message}"
    );
    // With the newer one in second place, and the first damaged, its page size must be found.
    file[4096..8192].copy_from_slice(&meta);
    assert_eq!(read_file_storage(&file).unwrap().files.len(), 2);
}

#[test]
fn pages_that_form_a_loop_end() {
    let mut file = database(
        4096,
        Layout::Branch,
        b"default",
        &[(KEY, JSON.as_bytes()); 3],
    );
    let branch = file.len() - 4096;
    let own = (branch / 4096) as u64;
    for element in 0..3 {
        let child = branch + 16 + element * 16 + 8;
        file[child..child + 8].copy_from_slice(&own.to_le_bytes());
    }
    let message = read_file_storage(&file).unwrap_err().to_string();
    assert!(message.contains("loop"), "{message}");
}

#[test]
fn every_cut_is_an_error_or_right() {
    let file = database(1024, Layout::Branch, b"default", &[(KEY, JSON.as_bytes())]);
    let whole = read_file_storage(&file).unwrap();
    for len in 0..file.len() {
        if let Ok(found) = read_file_storage(&file[..len]) {
            assert_eq!(found, whole, "cut at {len}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 500,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn property_damage_never_panics(
        layout in prop_oneof![Just(Layout::Inline), Just(Layout::Leaf), Just(Layout::Branch)],
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        // The pages behind the metas, whose checksum would stop most of it.
        behind_metas in any::<bool>(),
    ) {
        let value = [protobuf_entry(b"one", &[0xD2, 0x09]), protobuf_entry(b"two", &[0])].concat();
        let entries: [(&[u8], &[u8]); 2] = [(KEY, JSON.as_bytes()), (b"x.knownFiles", &value)];
        let mut file = database(1024, layout, b"default", &entries);
        let start = if behind_metas { 3 * 1024 } else { 0 };
        for (index, byte) in damage {
            let at = start + index.index(file.len() - start);
            file[at] = byte;
        }
        let _ = read_file_storage(&file);
    }

    #[test]
    fn property_any_bytes_are_refused_or_read_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let _ = known_files::decode(&bytes);
        let mut list = vec![0x0A];
        list.extend(&bytes);
        let _ = known_files::decode(&list);
        let _ = read_positions(&bytes);
    }
}

#[test]
fn positions_are_read_and_what_is_no_file_is_named() {
    let text = concat!(
        "positions:\n",
        "  /var/log/a.log: \"1234\"\n",
        "  /var/log/with space.log: \"7\"\n",
        "  \"/var/log/q:uoted.log\": '0'\n",
        "  /var/log/number.log: 99\n",
        "  cursor-docker-abc: \"1700000000\"\n",
        "  journal-systemd: s=abc;i=1\n",
        "  /var/log/bad.log: \"-5\"\n",
        "  /var/log/null.log:\n",
    );
    let imported = read_positions(text.as_bytes()).unwrap();
    let files: Vec<_> = imported
        .files
        .iter()
        .map(|f| (f.path.to_str().unwrap(), f.offset))
        .collect();
    let want = [
        ("/var/log/a.log", 1234),
        ("/var/log/with space.log", 7),
        ("/var/log/q:uoted.log", 0),
        ("/var/log/number.log", 99),
    ];
    assert_eq!(files, want);
    assert_eq!(imported.notes.len(), 4);
    for (note, want) in
        imported
            .notes
            .iter()
            .zip(["cursor-docker", "journal-systemd", "\"-5\"", "null"])
    {
        assert!(note.contains(want), "{note}");
    }
}

#[test]
fn an_empty_positions_file_is_empty_and_others_are_refused() {
    for text in ["positions: {}\n", "positions:\n"] {
        assert_eq!(
            read_positions(text.as_bytes()).unwrap(),
            Imported::default()
        );
    }
    for text in [
        "",
        "a: b",
        "positions: [1]",
        "positions:\n  a: [",
        "\0\0\0\0",
        "- a",
    ] {
        assert!(matches!(
            read_positions(text.as_bytes()),
            Err(ImportError::NotPositions(_))
        ));
    }
}
