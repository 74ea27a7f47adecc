//! Options as the tree that a configuration is.

use tailwater_config::reference::{ANY_NAME, ELEMENT, OptionRecord, RefusedOption, ValueKind};

/// An option, or what is in a list or behind a name, with what is below it.
#[derive(Default)]
pub struct Tree<'a> {
    /// `None` for elements, names and variants.
    pub option: Option<&'a OptionRecord>,
    /// By segment, in the order in which they are read.
    pub children: Vec<(&'a str, Tree<'a>)>,
    /// Keys below it that are refused, and why.
    pub refused: Vec<(&'a str, &'a str)>,
}

impl<'a> Tree<'a> {
    /// The tree of these options.
    pub fn new(options: &'a [OptionRecord], refused: &'a [RefusedOption]) -> Tree<'a> {
        let mut root = Tree::default();
        for option in options {
            root.at(&option.path).option = Some(option);
        }
        for refused in refused {
            if let Some((key, above)) = refused.path.split_last() {
                root.at(above).refused.push((key, &refused.why));
            }
        }
        root
    }

    fn at(&mut self, path: &'a [String]) -> &mut Tree<'a> {
        let mut tree = self;
        for segment in path {
            let known = tree.children.iter().position(|(name, _)| name == segment);
            let at = known.unwrap_or(tree.children.len());
            if known.is_none() {
                tree.children.push((segment, Tree::default()));
            }
            tree = &mut tree.children[at].1;
        }
        tree
    }

    /// What is below a segment.
    pub fn child(&self, segment: &str) -> Option<&Tree<'a>> {
        let mut children = self.children.iter();
        children.find(|(name, _)| *name == segment).map(|(_, t)| t)
    }

    /// What elements of the list are, if they are maps of options.
    pub fn element(&self) -> Option<&Tree<'a>> {
        self.child(ELEMENT)
    }

    /// The kinds of its value, without a list of anything where it is one of texts.
    pub fn kinds(&self) -> impl Iterator<Item = &'a ValueKind> {
        let kinds = self.option.map_or(&[][..], |o| &o.kinds);
        let has_options = self.element().is_some_and(|e| !e.children.is_empty());
        let is_any_list = !has_options && kinds.contains(&ValueKind::TextList);
        kinds
            .iter()
            .filter(move |kind| !is_any_list || **kind != ValueKind::List)
    }

    /// What is behind a free name.
    pub fn named(&self) -> Option<&Tree<'a>> {
        self.child(ANY_NAME)
    }

    /// Maps whose options depend on a name: the name, and the options.
    pub fn variants(&self) -> impl Iterator<Item = (&'a str, &Tree<'a>)> {
        self.children.iter().filter_map(|(name, tree)| {
            let name = name.strip_prefix('<')?.strip_suffix('>')?;
            Some((name, tree))
        })
    }

    /// The options of a map.
    pub fn options(&self) -> impl Iterator<Item = (&'a str, &Tree<'a>)> {
        let is_key = |name: &str| name != ELEMENT && name != ANY_NAME && !name.starts_with('<');
        let children = self.children.iter();
        children
            .filter(move |(name, _)| is_key(name))
            .map(|(name, t)| (*name, t))
    }
}
