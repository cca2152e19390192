//! A graph of what must come before what.

/// Nodes are numbered from 0. Some are *junctions*: they stand for "all of these before all of those" with as many
/// edges as there are nodes, and take no step of their own.
#[derive(Debug)]
pub(super) struct Graph {
    nodes: u32,
    junctions: u32,
    edges: Vec<(u32, u32)>,
}

impl Graph {
    pub fn new(nodes: usize) -> Graph {
        Graph { nodes: nodes as u32, junctions: 0, edges: Vec::new() }
    }

    /// Every node of the first list comes before every node of the second.
    pub fn all_before(&mut self, first: &[u32], second: &[u32]) {
        if first.is_empty() || second.is_empty() {
            return;
        }
        let junction = self.nodes + self.junctions;
        self.junctions += 1;
        self.edges.extend(first.iter().map(|node| (*node, junction)));
        self.edges.extend(second.iter().map(|node| (junction, *node)));
    }

    /// Per node the length of the longest way to it; `None` for nodes in a circle or behind one.
    pub fn ranks(&self) -> Vec<Option<u32>> {
        let total = (self.nodes + self.junctions) as usize;
        let (starts, targets) = self.successors(total);
        let mut waiting = vec![0_u32; total];
        targets.iter().for_each(|target| waiting[*target as usize] += 1);
        let mut rank = vec![0_u32; total];
        let mut ready: Vec<u32> = (0..total as u32).filter(|node| waiting[*node as usize] == 0).collect();
        let mut done = vec![false; total];
        while let Some(node) = ready.pop() {
            let node = node as usize;
            done[node] = true;
            let next_rank = rank[node] + u32::from(node < self.nodes as usize);
            for target in &targets[starts[node]..starts[node + 1]] {
                let target = *target as usize;
                rank[target] = rank[target].max(next_rank);
                waiting[target] -= 1;
                if waiting[target] == 0 {
                    ready.push(target as u32);
                }
            }
        }
        (0..self.nodes as usize).map(|node| done[node].then_some(rank[node])).collect()
    }

    /// The edges as one list of targets, and per node where its part starts.
    fn successors(&self, total: usize) -> (Vec<usize>, Vec<u32>) {
        let mut starts = vec![0_usize; total + 1];
        self.edges.iter().for_each(|(from, _)| starts[*from as usize + 1] += 1);
        (0..total).for_each(|node| starts[node + 1] += starts[node]);
        let mut free = starts.clone();
        let mut targets = vec![0_u32; self.edges.len()];
        for (from, to) in &self.edges {
            targets[free[*from as usize]] = *to;
            free[*from as usize] += 1;
        }
        (starts, targets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_the_longest_ways_and_circles_have_none() {
        let mut graph = Graph::new(6);
        graph.all_before(&[0], &[1, 2]);
        graph.all_before(&[1], &[2]);
        graph.all_before(&[3], &[4]);
        graph.all_before(&[4], &[3, 5]);
        assert_eq!(graph.ranks(), [Some(0), Some(1), Some(2), None, None, None]);
    }

    #[test]
    fn an_empty_list_asks_for_nothing() {
        let mut graph = Graph::new(2);
        graph.all_before(&[0], &[]);
        graph.all_before(&[], &[1]);
        assert_eq!(graph.ranks(), [Some(0), Some(0)]);
    }
}
