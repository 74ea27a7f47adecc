//! A request as it stands in a file.

use std::io;

use tailwater_pdata::otlp::Encoded;

use super::options::Form;

/// zstd's own default, as the collector's.
const ZSTD_LEVEL: i32 = 3;

/// A line of JSON, or, of what is binary, the length as four bytes, the most significant one first,
/// and the request. What is compressed is a frame of zstd for each request.
///
/// # Errors
/// It cannot be compressed, or has more than 4 GiB.
pub(super) fn framed(encoded: &Encoded, form: Form, compressed: bool) -> io::Result<Vec<u8>> {
    let binary = compressed || form == Form::Proto;
    // Room for the length, so that nothing is moved when it is known.
    let mut out = vec![0; if binary { 4 } else { 0 }];
    let start = out.len();
    match form {
        Form::Json => encoded.write_json(&mut out),
        Form::Proto => encoded.chunks().for_each(|c| out.extend_from_slice(c)),
    }
    if compressed {
        let frame = zstd::bulk::compress(&out[start..], ZSTD_LEVEL)?;
        out.truncate(start);
        out.extend_from_slice(&frame);
    }
    if binary {
        let length = u32::try_from(out.len() - start)
            .map_err(|_| io::Error::other("the request has more than 4 GiB"))?;
        out[..4].copy_from_slice(&length.to_be_bytes());
    } else {
        out.push(b'\n');
    }
    Ok(out)
}
