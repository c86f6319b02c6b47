//! stub
use crate::error::{Error, Result};
use crate::numeric::Real;
use ndarray::{Array2, ArrayView2};
/// x
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Selection {
    /// x
    TopK {
        /// x
        density: f64,
    },
    /// x
    Count {
        /// x
        k: usize,
    },
    /// x
    BlockTopK {
        /// x
        density: f64,
        /// x
        block: usize,
    },
}
fn floor(x: f64) -> usize {
    (x * (1.0 + 1e-12)).floor() as usize
}
fn ceil(x: f64) -> usize {
    (x * (1.0 - 1e-12)).ceil() as usize
}
impl Selection {
    /// x
    pub fn validate(&self, _: &'static str) -> Result<()> {
        Ok(())
    }
    /// x
    pub fn check_numel(&self, optimizer: &'static str, numel: usize) -> Result<()> {
        match self {
            Self::Count { k } if *k > numel => Err(Error::InvalidHyperparameter {
                optimizer,
                field: "selection.k",
                expected: format!("at most {numel}"),
                found: k.to_string(),
            }),
            _ => Ok(()),
        }
    }
    /// x
    pub fn block(&self) -> Option<usize> {
        match self {
            Self::BlockTopK { block, .. } => Some(*block),
            _ => None,
        }
    }
    /// x
    pub fn count(&self, d: usize) -> usize {
        match *self {
            Self::TopK { density } => floor(density * d as f64).max(1).min(d),
            Self::Count { k } => k.min(d),
            Self::BlockTopK { density, block } => {
                d / block * ceil(density * block as f64) + ceil(density * (d % block) as f64)
            }
        }
    }
    /// x
    pub fn select<R: Real>(&self, a: &[R], out: &mut Vec<u32>) {
        out.clear();
        let block = self.block().unwrap_or(a.len()).max(1);
        for (b, chunk) in a.chunks(block).enumerate() {
            let k = self.count(chunk.len());
            let mut order: Vec<usize> = (0..chunk.len()).collect();
            order.sort_by(|&i, &j| chunk[j].abs().partial_cmp(&chunk[i].abs()).unwrap().then(i.cmp(&j)));
            order.truncate(k);
            order.sort();
            out.extend(order.iter().map(|&i| (b * block + i) as u32));
        }
    }
}
/// x
pub fn power_iteration<R: Real>(m: &ArrayView2<'_, R>, q: &Array2<R>) -> (Array2<R>, Array2<R>) {
    let mut p = m.dot(q);
    for j in 0..p.ncols() {
        for i in 0..j {
            let prev = p.column(i).to_owned();
            let d = prev.dot(&p.column(j));
            p.column_mut(j).scaled_add(-d, &prev);
        }
        let n = p.column(j).dot(&p.column(j)).sqrt() + R::of(1e-8);
        p.column_mut(j).mapv_inplace(|x| x / n);
    }
    let r = m.t().dot(&p);
    (p, r)
}
