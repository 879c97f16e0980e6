//! Fair sharing: every flow gets the same of its busiest link, and what others cannot use goes to those who can (max-min).

/// A flow, as far as sharing goes.
#[derive(Clone, Debug)]
pub(crate) struct Share<'l> {
    /// The links that it crosses.
    pub(crate) links: &'l [usize],
    /// What it can use at most.
    pub(crate) most: f64,
    /// What it gets.
    pub(crate) rate: f64,
}

/// Room to work in, kept from one time to the next.
#[derive(Debug)]
pub(crate) struct Room {
    left: Vec<f64>,
    flows: Vec<u32>,
    used: Vec<usize>,
}

/// Two shares this near are one.
const SAME: f64 = 1.0 + 1e-9;

impl Room {
    pub(crate) fn new(links: usize) -> Room {
        Room { left: vec![0.0; links], flows: vec![0; links], used: Vec::new() }
    }

    /// Gives every flow its rate, and says how much work that was.
    pub(crate) fn share(&mut self, flows: &mut [Share<'_>], rate: impl Fn(usize) -> f64) -> u64 {
        self.used.clear();
        for flow in flows.iter_mut() {
            flow.rate = -1.0;
            for &link in flow.links {
                if self.flows[link] == 0 {
                    self.used.push(link);
                    self.left[link] = rate(link);
                }
                self.flows[link] += 1;
            }
        }
        let mut open = flows.len();
        let mut work = 0;
        while open > 0 {
            let of_link = |link: &usize| self.left[*link].max(0.0) / f64::from(self.flows[*link]);
            let busy = self.used.iter().filter(|link| self.flows[**link] > 0);
            let least = busy.map(of_link).fold(f64::INFINITY, f64::min);
            let waiting = flows.iter().filter(|flow| flow.rate < 0.0);
            let most = waiting.map(|flow| flow.most).fold(f64::INFINITY, f64::min);
            work += (self.used.len() + flows.len()) as u64;
            // First all that is full at this level is found, then it is taken out, so that the order of flows has no say.
            let level = least.min(most);
            let full: Vec<bool> = flows
                .iter()
                .map(|flow| {
                    flow.rate < 0.0
                        && (flow.most <= level * SAME
                            || flow.links.iter().any(|link| {
                                self.left[*link].max(0.0) / f64::from(self.flows[*link])
                                    <= level * SAME
                            }))
                })
                .collect();
            let mut any = false;
            for (flow, _) in flows.iter_mut().zip(&full).filter(|(_, full)| **full) {
                any = true;
                flow.rate = level;
                open -= 1;
                for &link in flow.links {
                    self.left[link] -= level;
                    self.flows[link] -= 1;
                }
            }
            if !any {
                break;
            }
        }
        for &link in &self.used {
            self.flows[link] = 0;
        }
        work
    }
}
