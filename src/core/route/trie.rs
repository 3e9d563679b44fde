//! A tree over labels: host names from the right, paths segment by segment.

use std::collections::BTreeMap;

/// No value.
const NONE: u32 = u32::MAX;

/// Many trees in one set of arrays. A node may hold a value for exactly its key and a value for its key and what lies below.
#[derive(Debug)]
pub(super) struct Trie {
    nodes: Box<[Node]>,
    /// Edges of each node side by side, in order of their labels.
    edges: Box<[Edge]>,
    labels: Box<[u8]>,
}

#[derive(Debug)]
struct Node {
    edges: (u32, u32),
    exact: u32,
    below: u32,
    /// The nearest node above with a `below`, so that falling back to a shorter key is one step.
    up: u32,
}

#[derive(Debug)]
struct Edge {
    label: (u32, u32),
    node: u32,
}

/// How far a key was followed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk {
    node: u32,
    /// Whether the whole key was.
    whole: bool,
}

/// Collects keys for a [`Trie`].
#[derive(Debug, Default)]
pub(super) struct TrieBuilder {
    nodes: Vec<BuildNode>,
}

/// The values of one key, as indices of the caller's.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slot {
    /// Value of exactly this key.
    pub(super) exact: Option<u32>,
    /// Value of this key and what lies below.
    pub(super) below: Option<u32>,
}

#[derive(Debug, Default)]
struct BuildNode {
    children: BTreeMap<Box<[u8]>, usize>,
    slot: Slot,
}

// === impl TrieBuilder ===

impl TrieBuilder {
    /// A new tree; returns its root.
    pub(super) fn root(&mut self) -> usize {
        self.nodes.push(BuildNode::default());
        self.nodes.len() - 1
    }

    /// The slot of the key `labels` in the tree of `root`.
    pub(super) fn slot<'k>(&mut self, root: usize, labels: impl Iterator<Item = &'k [u8]>) -> &mut Slot {
        let mut at = root;
        for label in labels {
            let known = self.nodes[at].children.get(label).copied();
            at = known.unwrap_or_else(|| {
                let child = self.root();
                self.nodes[at].children.insert(label.into(), child);
                child
            });
        }
        &mut self.nodes[at].slot
    }

    /// Lays the trees out for lookup. Nodes keep their numbers, roots among them.
    pub(super) fn build(self) -> Trie {
        let mut edges: Vec<Edge> = Vec::with_capacity(self.nodes.len());
        let mut labels = Vec::new();
        let mut nodes: Vec<Node> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let first = index(edges.len());
            for (label, &child) in &node.children {
                let start = index(labels.len());
                labels.extend_from_slice(label);
                edges.push(Edge { label: (start, index(labels.len())), node: index(child) });
            }
            let Slot { exact, below } = node.slot;
            let (exact, below) = (exact.unwrap_or(NONE), below.unwrap_or(NONE));
            nodes.push(Node { edges: (first, index(edges.len())), exact, below, up: NONE });
        }
        // A child always has a greater number than its parent, so one pass downwards is enough.
        for at in 0..nodes.len() {
            let up = if nodes[at].below == NONE { nodes[at].up } else { index(at) };
            let (first, end) = nodes[at].edges;
            for edge in &edges[first as usize..end as usize] {
                nodes[edge.node as usize].up = up;
            }
        }
        Trie { nodes: nodes.into(), edges: edges.into(), labels: labels.into() }
    }
}

// === impl Trie ===

impl Trie {
    /// Follows `labels` from `root` as far as there are nodes. At most one step per label of the longest key stored.
    pub(super) fn walk<'k>(&self, root: u32, labels: impl Iterator<Item = &'k [u8]>) -> Walk {
        let mut node = root;
        for label in labels {
            match self.child(node, label) {
                Some(child) => node = child,
                None => return Walk { node, whole: false },
            }
        }
        Walk { node, whole: true }
    }

    /// The value of exactly the key that was followed.
    pub(super) fn exact(&self, walk: Walk) -> Option<u32> {
        value(self.node(walk.node).exact).filter(|_| walk.whole)
    }

    /// The `below` values of the key that was followed and of all shorter ones, the longest key first. With `strictly`, the key that
    /// was followed to its end does not count as below itself.
    pub(super) fn below(&self, walk: Walk, strictly: bool) -> impl Iterator<Item = u32> {
        let node = self.node(walk.node);
        let first = if node.below == NONE || (strictly && walk.whole) { node.up } else { walk.node };
        std::iter::successors(value(first), |&at| value(self.node(at).up)).map(|at| self.node(at).below)
    }

    fn child(&self, node: u32, label: &[u8]) -> Option<u32> {
        let (first, end) = self.node(node).edges;
        let edges = &self.edges[first as usize..end as usize];
        let at = edges.binary_search_by(|edge| self.label(edge).cmp(label)).ok()?;
        Some(edges[at].node)
    }

    fn node(&self, at: u32) -> &Node {
        &self.nodes[at as usize]
    }

    fn label(&self, edge: &Edge) -> &[u8] {
        &self.labels[edge.label.0 as usize..edge.label.1 as usize]
    }
}

const fn value(stored: u32) -> Option<u32> {
    if stored == NONE { None } else { Some(stored) }
}

/// Positions are kept in 32 bits; a configuration of 4 GiB cannot be read, let alone indexed.
pub(super) fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(key: &str) -> impl Iterator<Item = &[u8]> {
        key.split('/').filter(|l| !l.is_empty()).map(str::as_bytes)
    }

    #[test]
    fn walks_give_the_exact_value_and_the_longest_below_first() {
        let mut builder = TrieBuilder::default();
        let (one, two) = (builder.root(), builder.root());
        for (root, key, value) in [(one, "", 0), (one, "a/b", 1), (one, "a/b/c/d", 2), (two, "a", 3)] {
            builder.slot(root, labels(key)).below = Some(value);
        }
        builder.slot(one, labels("a/b/c")).exact = Some(9);
        let trie = builder.build();
        for (root, key, strictly, exact, below) in [
            (one, "a/b/c/d/e", false, None, vec![2, 1, 0]),
            (one, "a/b/c/d", false, None, vec![2, 1, 0]),
            (one, "a/b/c/d", true, None, vec![1, 0]),
            (one, "a/b/c", true, Some(9), vec![1, 0]),
            (one, "a/b/x", true, None, vec![1, 0]),
            (one, "a/b", true, None, vec![0]),
            (one, "x", false, None, vec![0]),
            (one, "", true, None, vec![]),
            (two, "a/b/c", false, None, vec![3]),
            (two, "b", false, None, vec![]),
        ] {
            let walk = trie.walk(index(root), labels(key));
            assert_eq!(trie.exact(walk), exact, "{key}");
            assert_eq!(trie.below(walk, strictly).collect::<Vec<_>>(), below, "{key} {strictly}");
        }
    }
}
