//! Cycles and longest chains in a graph.

/// The strongly connected components of a graph, each before those that lead to it (Tarjan's
/// algorithm with a stack of its own).
pub(super) fn components(edges: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut search = Search {
        edges,
        index: vec![None; edges.len()],
        low: vec![0; edges.len()],
        open: vec![false; edges.len()],
        stack: Vec::new(),
        visited: 0,
        found: Vec::new(),
    };
    for node in 0..edges.len() {
        if search.index.get(node).is_some_and(Option::is_none) {
            search.run(node);
        }
    }
    search.found
}

struct Search<'e> {
    edges: &'e [Vec<usize>],
    index: Vec<Option<usize>>,
    low: Vec<usize>,
    open: Vec<bool>,
    stack: Vec<usize>,
    visited: usize,
    found: Vec<Vec<usize>>,
}

impl Search<'_> {
    fn run(&mut self, root: usize) {
        let mut path = vec![(root, 0)];
        self.enter(root);
        while let Some((node, next)) = path.last_mut() {
            let node = *node;
            let child = self
                .edges
                .get(node)
                .and_then(|edges| edges.get(*next))
                .copied();
            *next += 1;
            match child {
                Some(child) => match self.index.get(child).copied().flatten() {
                    None => {
                        self.enter(child);
                        path.push((child, 0));
                    }
                    Some(index) if self.open.get(child) == Some(&true) => self.lower(node, index),
                    Some(_) => {}
                },
                None => {
                    path.pop();
                    let low = self.low.get(node).copied().unwrap_or_default();
                    if let Some((parent, _)) = path.last() {
                        self.lower(*parent, low);
                    }
                    if self.index.get(node) == Some(&Some(low)) {
                        self.close(node);
                    }
                }
            }
        }
    }

    fn enter(&mut self, node: usize) {
        set(&mut self.index, node, Some(self.visited));
        set(&mut self.low, node, self.visited);
        set(&mut self.open, node, true);
        self.stack.push(node);
        self.visited += 1;
    }

    fn lower(&mut self, node: usize, low: usize) {
        if let Some(own) = self.low.get_mut(node) {
            *own = low.min(*own);
        }
    }

    fn close(&mut self, root: usize) {
        let start = self
            .stack
            .iter()
            .rposition(|node| *node == root)
            .unwrap_or_default();
        let component = self.stack.split_off(start);
        for node in &component {
            set(&mut self.open, *node, false);
        }
        self.found.push(component);
    }
}

fn set<T>(items: &mut [T], at: usize, value: T) {
    if let Some(item) = items.get_mut(at) {
        *item = value;
    }
}

/// The largest sum of weights along a path. Of a cycle each node counts once.
pub(super) fn heaviest_path(weights: &[u64], edges: &[Vec<usize>]) -> u64 {
    let components = components(edges);
    let mut component_of = vec![0; edges.len()];
    for (at, component) in components.iter().enumerate() {
        for node in component {
            set(&mut component_of, *node, at);
        }
    }
    let mut sums: Vec<u64> = Vec::with_capacity(components.len());
    for (at, component) in components.iter().enumerate() {
        let own = component
            .iter()
            .filter_map(|node| weights.get(*node))
            .sum::<u64>();
        let children = component
            .iter()
            .filter_map(|node| edges.get(*node))
            .flatten();
        let below = children
            .filter_map(|child| component_of.get(*child))
            .filter(|child| **child != at)
            .filter_map(|child| sums.get(*child));
        sums.push(own.saturating_add(below.max().copied().unwrap_or_default()));
    }
    sums.into_iter().max().unwrap_or_default()
}

/// A cycle, from its first node back to it, or `None` if there is none.
pub(super) fn cycle(edges: &[Vec<usize>]) -> Option<Vec<usize>> {
    let loops = |node: usize| edges.get(node).is_some_and(|edges| edges.contains(&node));
    let component = components(edges)
        .into_iter()
        .find(|nodes| nodes.len() > 1 || nodes.first().is_some_and(|node| loops(*node)))?;
    let start = component.iter().copied().min()?;
    let mut inside = vec![false; edges.len()];
    for node in component {
        set(&mut inside, node, true);
    }
    let mut from: Vec<Option<usize>> = vec![None; edges.len()];
    let mut queue = std::collections::VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        for child in edges.get(node).into_iter().flatten().copied() {
            if child == start {
                let back = std::iter::successors(Some(node), |node| from.get(*node).copied()?);
                let mut cycle: Vec<_> = std::iter::once(start).chain(back).collect();
                cycle.reverse();
                return Some(cycle);
            }
            if from.get(child) == Some(&None) && inside.get(child) == Some(&true) {
                set(&mut from, child, Some(node));
                queue.push_back(child);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heaviest_path_counts_a_node_of_a_cycle_once() {
        // 0 → 1 → 2 → 3, 2 → 1, 0 → 3
        let edges = [vec![1, 3], vec![2], vec![1, 3], vec![]];
        assert_eq!(heaviest_path(&[1, 10, 100, 1000], &edges), 1111);
        assert_eq!(heaviest_path(&[1, 10, 100, 5000], &edges), 5111);
        assert_eq!(heaviest_path(&[], &[]), 0);
    }

    #[test]
    fn a_cycle_is_told_from_its_start_to_its_start() {
        assert_eq!(cycle(&[vec![1, 2], vec![2], vec![]]), None);
        assert_eq!(
            cycle(&[vec![1], vec![2, 3], vec![1], vec![]]),
            Some(vec![1, 2, 1])
        );
        assert_eq!(cycle(&[vec![], vec![1]]), Some(vec![1, 1]));
    }

    #[test]
    fn a_long_chain_needs_no_stack() {
        let edges: Vec<_> = (1..200_001)
            .map(|next| vec![next])
            .chain([vec![]])
            .collect();
        let weights = vec![1; edges.len()];
        assert_eq!(heaviest_path(&weights, &edges), 200_001);
    }
}
