//! Reading a tree in order.

use super::{Inner, Key, Leaf, Node, Tree};

/// Reads a tree from some rank on, in one direction.
#[derive(Clone, Default)]
pub struct Cursor<'a> {
    path: smallvec::SmallVec<[(&'a Inner, usize); 6]>,
    leaf: Option<(&'a Leaf, usize)>,
}

impl<'a> Cursor<'a> {
    /// The first `next` gives the key at `rank`.
    pub fn forward(tree: &'a Tree, rank: usize) -> Self {
        let mut cursor = Self::default();
        if let (Some(root), true) = (&tree.root, rank < tree.len) {
            cursor.descend(root, rank);
        }
        cursor
    }

    /// The first `previous` gives the key before `rank`.
    pub fn backward(tree: &'a Tree, rank: usize) -> Self {
        let mut cursor = Self::default();
        if let (Some(root), true) = (&tree.root, rank > 0 && rank <= tree.len) {
            cursor.descend(root, rank - 1);
            // Stands after the key that comes next.
            cursor.leaf = cursor.leaf.map(|(leaf, i)| (leaf, i + 1));
        }
        cursor
    }

    fn descend(&mut self, mut node: &'a Node, mut rank: usize) {
        loop {
            match node {
                Node::Leaf(leaf) => {
                    self.leaf = Some((leaf, rank));
                    return;
                }
                Node::Inner(inner) => {
                    let mut i = 0;
                    while rank >= inner.counts[i] as usize {
                        rank -= inner.counts[i] as usize;
                        i += 1;
                    }
                    self.path.push((inner, i));
                    node = inner.child(i);
                }
            }
        }
    }

    #[inline]
    pub fn next(&mut self) -> Option<Key<'a>> {
        let (leaf, i) = self.leaf.as_mut()?;
        if *i == leaf.len {
            return self.next_leaf();
        }
        *i += 1;
        Some(leaf.key(*i - 1))
    }

    fn next_leaf(&mut self) -> Option<Key<'a>> {
        loop {
            let (inner, i) = self.path.pop()?;
            if i + 1 < inner.len {
                self.path.push((inner, i + 1));
                self.descend(inner.child(i + 1), 0);
                return self.next();
            }
        }
    }

    #[inline]
    pub fn previous(&mut self) -> Option<Key<'a>> {
        let (leaf, i) = self.leaf.as_mut()?;
        if *i == 0 {
            return self.previous_leaf();
        }
        *i -= 1;
        Some(leaf.key(*i))
    }

    fn previous_leaf(&mut self) -> Option<Key<'a>> {
        loop {
            let (inner, i) = self.path.pop()?;
            if i > 0 {
                self.path.push((inner, i - 1));
                self.descend(inner.child(i - 1), inner.counts[i - 1] as usize - 1);
                self.leaf = self.leaf.map(|(leaf, i)| (leaf, i + 1));
                return self.previous();
            }
        }
    }
}
