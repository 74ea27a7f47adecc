//! Files that are named on the command line, without a pattern: sources from the beginning, whether they are
//! there yet or not.

use super::{Publisher, labels};
use crate::model::{Descriptor, Format, Origin};

/// Says that these are there, and nothing else of this origin.
pub fn publish(paths: &[String], publisher: &mut Publisher) {
    let generation = publisher.generation();
    let mut ids = Vec::new();
    for path in paths {
        let id = format!("static:{path}");
        let source = Descriptor {
            id: id.clone(),
            origin: Origin::Static,
            paths: vec![path.clone()],
            format: Format::Plain,
            labels: labels::of_file(path),
        };
        publisher.present(&format!("static/{path}/{generation}"), generation, source);
        ids.push(id);
    }
    publisher.snapshot(generation, ids);
}
