//! Lanes that come and go while others run.

use std::sync::Arc;

use tailwater_pipeline::checkpoint::{Checkpoint, CheckpointHandle, PutError};

use super::{
    GONE, IN_SINGLE, IN_USE, KEPT, MARK, Moves, Set, Sets, canonical, compare, is_mark, seen_at,
};

/// Gives each of `exporters` that does not run yet its positions: its own if it has some, those of
/// the exporter in `gone` that is furthest behind, or else those of the furthest of the `running`
/// ones. Of these, with their namespaces, nothing is moved.
///
/// # Errors
/// There is no room for the positions of another exporter. Nothing is changed then.
pub fn arrange(
    store: &CheckpointHandle,
    receiver: &str,
    exporters: &[Arc<str>],
    running: &[(Arc<str>, Arc<str>)],
    gone: &[Arc<str>],
) -> Result<(), PutError> {
    let mut sets = Sets::of_lanes(store, receiver);
    let single = running
        .iter()
        .find(|(_, namespace)| **namespace == *receiver);
    let single = single.map(|(exporter, _)| canonical(exporter));
    let owner = single.clone().or_else(|| owner_of_single(&sets));
    adopt_single(&mut sets, owner.as_deref());
    let runs = |e: &str| running.iter().any(|(r, _)| canonical(r) == e);
    let gone: Vec<String> = gone.iter().map(|e| canonical(e)).collect();
    let mut moves = Moves::default();
    let wanted: Vec<String> = exporters.iter().map(|e| canonical(e)).collect();
    for exporter in wanted.iter().filter(|e| !runs(e)) {
        let own = sets.in_use.get(exporter).or(sets.kept.get(exporter));
        let set = own.or_else(|| of_a_new_one(&sets, &gone, &runs));
        let none = Set::new();
        let set = sets.marked(IN_USE, exporter, set.unwrap_or(&none));
        moves.put.extend(set);
        if owner.as_ref() == Some(exporter) {
            moves.remove(&sets, None, &sets.in_use[exporter]);
        }
        if let Some(kept) = sets.kept.get(exporter) {
            moves.remove(&sets, Some((KEPT, exporter)), kept);
        }
    }
    if let Some(exporter) = &single {
        moves.put.push((mark(&sets, exporter), of_mark(IN_SINGLE)));
    }
    store.replace(&moves.remove, &moves.put)?;
    // Whoever reads a file takes hold of its position; of the marks nobody else does.
    for exporter in wanted.iter().filter(|e| !runs(e)) {
        store.put(&mark(&sets, exporter), Checkpoint::default())?;
    }
    if let Some(exporter) = &single {
        store.put(&mark(&sets, exporter), of_mark(IN_SINGLE))?;
    }
    Ok(())
}

/// Notes that the exporters in `gone` are not served any more. What they have under way may still move
/// their positions.
///
/// # Errors
/// There is no room for it.
pub fn note_gone(
    store: &CheckpointHandle,
    receiver: &str,
    gone: &[Arc<str>],
) -> Result<(), PutError> {
    if gone.is_empty() {
        return Ok(());
    }
    let sets = Sets::of_lanes(store, receiver);
    for exporter in gone {
        let key = mark(&sets, &canonical(exporter));
        // Without one it has no positions.
        if let Some(mark) = store.get(&key) {
            store.put(&key, of_mark(mark.offset | GONE))?;
        }
    }
    Ok(())
}

/// Moves sets to where their marks say that they belong. Nothing of the receiver runs.
///
/// # Errors
/// There is no room. Nothing is changed then.
pub fn settle(store: &CheckpointHandle, receiver: &str, wall_ns: i64) -> Result<(), PutError> {
    let mut sets = Sets::of_lanes(store, receiver);
    let owner = owner_of_single(&sets);
    adopt_single(&mut sets, owner.as_deref());
    let mut moves = Moves::default();
    for (exporter, set) in &sets.in_use {
        let mark = offset_of_mark(set);
        if mark == 0 {
            continue;
        }
        let place = Some((IN_USE, exporter.as_str()));
        moves.remove(&sets, place, set);
        if owner.as_ref() == Some(exporter) {
            moves.remove(&sets, None, set);
        }
        let seen = set.iter().map(|(file, c)| match mark & GONE {
            0 => (file.clone(), c.clone()),
            _ => (file.clone(), seen_at(c, wall_ns)),
        });
        let separator = if mark & GONE == 0 { IN_USE } else { KEPT };
        moves
            .put
            .extend(sets.marked(separator, exporter, &seen.collect()));
    }
    if moves.put.is_empty() {
        return Ok(());
    }
    store.replace(&moves.remove, &moves.put)
}

/// Whose set the positions of the receiver itself are, if a mark says so.
fn owner_of_single(sets: &Sets<'_>) -> Option<String> {
    let is_owner = |(_, set): &(&String, &Set)| offset_of_mark(set) & IN_SINGLE != 0;
    let owner = sets.in_use.iter().find(is_owner);
    owner.map(|(exporter, _)| exporter.clone())
}

/// Makes the positions of the receiver itself the set of a lane.
fn adopt_single(sets: &mut Sets<'_>, owner: Option<&str>) {
    sets.read_single();
    let Some(owner) = owner else {
        return;
    };
    let single = std::mem::take(&mut sets.single).into_iter();
    let positions = single.filter(|(file, _)| !is_mark(file) && !file.is_empty());
    let set = sets.in_use.entry(owner.to_owned()).or_default();
    set.retain(|file, _| **file == *MARK);
    set.extend(positions);
}

/// As [`Sets::of_a_new_one`], where nothing is at rest.
fn of_a_new_one<'s>(
    sets: &'s Sets<'_>,
    gone: &[String],
    runs: &dyn Fn(&str) -> bool,
) -> Option<&'s Set> {
    let left = gone.iter().filter_map(|e| sets.in_use.get(e));
    let behind = left.min_by(|a, b| compare(a, b));
    let single = (!sets.single.is_empty()).then_some(&sets.single);
    let others = sets.in_use.iter().filter(|(e, _)| runs(e));
    let furthest = || others.map(|(_, set)| set).max_by(|a, b| compare(a, b));
    behind.or(single).or_else(furthest)
}

fn mark(sets: &Sets<'_>, exporter: &str) -> Vec<u8> {
    sets.key(Some((IN_USE, exporter)), MARK)
}

fn of_mark(offset: u64) -> Checkpoint {
    Checkpoint {
        offset,
        ..Checkpoint::default()
    }
}

fn offset_of_mark(set: &Set) -> u64 {
    set.get(MARK).map_or(0, |mark| mark.offset)
}
