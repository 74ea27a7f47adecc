//! What is on the screen, and what keys do.

use std::cmp::Reverse;

use super::look::Look;
use super::view::{FileRow, Mark, NodeRow, View};

/// What a key asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key {
    /// The end.
    Quit,
    /// Another order.
    Sort,
    /// Nothing new is shown, or again.
    Pause,
    /// The other table.
    Tab,
    /// So many rows down; negative: up.
    Move(i32),
}

/// The table that keys are about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tab {
    /// Nodes.
    Nodes,
    /// Files.
    Files,
}

/// How nodes are ordered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeOrder {
    /// As data goes through them.
    Flow,
    /// What is not as it should be first.
    State,
    /// By items per second.
    Rate,
    /// By bytes that are not delivered.
    Lag,
    /// By items that were refused or failed.
    Errors,
}

/// How files are ordered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileOrder {
    /// By bytes that are not delivered.
    Lag,
    /// By the time they wait.
    Wait,
    /// By size.
    Size,
    /// By path.
    Path,
}

impl NodeOrder {
    const ALL: [NodeOrder; 5] = [
        NodeOrder::Flow,
        NodeOrder::State,
        NodeOrder::Rate,
        NodeOrder::Lag,
        NodeOrder::Errors,
    ];

    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            NodeOrder::Flow => "flow",
            NodeOrder::State => "state",
            NodeOrder::Rate => "rate",
            NodeOrder::Lag => "lag",
            NodeOrder::Errors => "errors",
        }
    }
}

impl FileOrder {
    const ALL: [FileOrder; 4] = [
        FileOrder::Lag,
        FileOrder::Wait,
        FileOrder::Size,
        FileOrder::Path,
    ];

    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            FileOrder::Lag => "lag",
            FileOrder::Wait => "wait",
            FileOrder::Size => "size",
            FileOrder::Path => "path",
        }
    }
}

/// The one after `now`, and after the last one the first.
fn next<T: Copy + PartialEq>(all: &[T], now: T) -> T {
    let at = all.iter().position(|one| *one == now).unwrap_or(0);
    all[(at + 1) % all.len()]
}

/// See the module's documentation.
pub struct App {
    /// The newest look that was taken.
    newest: Look,
    /// What is shown.
    pub view: View,
    /// Why there is no newer look.
    pub trouble: Option<String>,
    /// The table that keys are about.
    pub tab: Tab,
    /// Nothing new is shown.
    pub paused: bool,
    /// How nodes are ordered.
    pub node_order: NodeOrder,
    /// How files are ordered.
    pub file_order: FileOrder,
    /// The row of nodes, and of files, that is looked at.
    pub rows: [usize; 2],
}

impl App {
    /// Shows `first`, whose rates are not known yet.
    pub fn new(first: Look) -> App {
        App {
            view: View::new(None, &first),
            newest: first,
            trouble: None,
            tab: Tab::Nodes,
            paused: false,
            node_order: NodeOrder::Flow,
            file_order: FileOrder::Lag,
            rows: [0, 0],
        }
    }

    /// Takes another look, or why there is none. While it pauses, the last one stays: what is shown
    /// afterwards are the rates since then.
    pub fn take(&mut self, seen: Result<Look, String>) {
        match seen {
            Err(why) => self.trouble = Some(why),
            Ok(look) => {
                self.trouble = None;
                if !self.paused {
                    self.view = View::new(Some(&self.newest), &look);
                    self.newest = look;
                    self.press(Key::Move(0));
                }
            }
        }
    }

    /// Does what a key asks for.
    pub fn press(&mut self, key: Key) {
        match key {
            Key::Quit => {}
            Key::Pause => self.paused = !self.paused,
            Key::Tab => {
                self.tab = match self.tab {
                    Tab::Nodes => Tab::Files,
                    Tab::Files => Tab::Nodes,
                }
            }
            Key::Sort => match self.tab {
                Tab::Nodes => self.node_order = next(&NodeOrder::ALL, self.node_order),
                Tab::Files => self.file_order = next(&FileOrder::ALL, self.file_order),
            },
            Key::Move(by) => {
                let counts = [self.view.nodes.len(), self.view.files.len()];
                self.rows = [0, 1].map(|i| self.rows[i].min(counts[i].saturating_sub(1)));
                let i = usize::from(self.tab == Tab::Files);
                let row = self.rows[i] as i64 + i64::from(by);
                let last = counts[i].saturating_sub(1) as i64;
                self.rows[i] = row.clamp(0, last) as usize;
            }
        }
    }

    /// Nodes in their order.
    pub fn nodes(&self) -> Vec<&NodeRow> {
        let mut nodes: Vec<&NodeRow> = self.view.nodes.iter().collect();
        // In thousandths: fractions have no order of their own.
        let rate = |n: &NodeRow| n.rate_out.or(n.rate_in).map(|r| (r * 1e3) as u64);
        match self.node_order {
            NodeOrder::Flow => {}
            NodeOrder::State => nodes.sort_by_key(|n| Reverse(n.mark)),
            NodeOrder::Rate => nodes.sort_by_key(|n| Reverse(rate(n))),
            NodeOrder::Lag => nodes.sort_by_key(|n| Reverse(n.lag_bytes)),
            NodeOrder::Errors => nodes.sort_by_key(|n| Reverse(n.errors)),
        }
        nodes
    }

    /// Files in their order.
    pub fn files(&self) -> Vec<&FileRow> {
        let mut files: Vec<&FileRow> = self.view.files.iter().collect();
        let wait = |f: &FileRow| f.lag_seconds.map(|s| (s * 1e3) as u64);
        match self.file_order {
            FileOrder::Lag => files.sort_by_key(|f| Reverse(f.lag_bytes)),
            FileOrder::Wait => files.sort_by_key(|f| Reverse(wait(f))),
            FileOrder::Size => files.sort_by_key(|f| Reverse(f.size)),
            FileOrder::Path => files.sort_by(|a, b| a.path.cmp(&b.path)),
        }
        files
    }

    /// Whether all is well.
    pub fn mark(&self) -> Mark {
        match (self.trouble.is_some(), self.view.ready) {
            (true, _) => Mark::Down,
            (false, true) => Mark::Good,
            (false, false) => Mark::Trouble,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::look_at;
    use super::*;
    use std::time::Instant;

    /// Guarantee: while it pauses nothing changes on the screen, and afterwards rates are those since
    /// what was shown last.
    #[test]
    fn a_pause_keeps_what_is_shown() {
        let start = Instant::now();
        let mut app = App::new(look_at(start, 0, 100));
        app.take(Ok(look_at(start, 1, 200)));
        assert_eq!(app.view.rate_out(), Some(100.0));
        let shown = app.view.clone();
        app.press(Key::Pause);
        app.take(Ok(look_at(start, 2, 900)));
        assert_eq!(app.view, shown);
        app.press(Key::Pause);
        app.take(Ok(look_at(start, 11, 700)));
        assert_eq!(app.view.rate_out(), Some(50.0), "since the second look");
    }

    #[test]
    fn keys_change_order_table_and_row() {
        let mut app = App::new(look_at(Instant::now(), 0, 100));
        let first = |app: &App| app.nodes()[0].key.clone();
        assert_eq!(first(&app), "receiver file_log (logs)");
        app.press(Key::Sort);
        assert_eq!(
            (app.node_order, first(&app).as_str()),
            (NodeOrder::State, "receiver otlp (logs)")
        );
        app.press(Key::Move(-3));
        assert_eq!(app.rows, [0, 0]);
        app.press(Key::Move(i32::MAX));
        assert_eq!(app.rows, [5, 0]);
        app.press(Key::Tab);
        for want in [
            FileOrder::Wait,
            FileOrder::Size,
            FileOrder::Path,
            FileOrder::Lag,
        ] {
            app.press(Key::Sort);
            assert_eq!(app.file_order, want);
        }
        app.press(Key::Move(1));
        assert_eq!((app.rows, app.node_order), ([5, 1], NodeOrder::State));
        app.press(Key::Tab);
        app.press(Key::Move(i32::MIN));
        assert_eq!(app.rows, [0, 1]);
    }

    #[test]
    fn an_agent_that_is_gone_is_said_to_be_until_it_is_back() {
        let start = Instant::now();
        let mut app = App::new(look_at(start, 0, 100));
        assert_eq!(app.mark(), Mark::Trouble);
        app.take(Err("no agent".to_owned()));
        assert_eq!((app.mark(), app.view.nodes.len()), (Mark::Down, 6));
        app.take(Ok(look_at(start, 5, 0)));
        assert_eq!((app.mark(), app.trouble.as_deref()), (Mark::Trouble, None));
    }
}
