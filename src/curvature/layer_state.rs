//! What is remembered of one layer, and what it does to a gradient.

use super::kronecker_inverse::KroneckerInverse;
use super::layer_factors::LayerFactors;
use crate::error::{Error, Result, check_finite};
use crate::linalg::{Damping, frobenius, matmul};
use crate::numeric::Real;
use crate::numeric::range::flushed;
use crate::second_order::factor::{Eigenpairs, Factor, FactorOptions, GramSum, reason};
use crate::state::{Lookup, Record, Scalar, StateBytes, StateTensor};
use ndarray::{Array1, Array2, ArrayRef2, ArrayView2, Zip};

const SINGULAR: &str = "it is not positive definite, damping included";

/// Both factors of a layer and all that follows from them.
#[derive(Clone, Debug)]
pub(super) struct LayerState<R> {
    /// Outputs, inputs.
    shape: (usize, usize),
    /// L, of the output gradients, and R, of the inputs.
    pub factors: [Factor<R>; 2],
    /// S, second moments along the eigenvectors, if they are kept.
    moments: Option<Array2<R>>,
    /// Whether eigenpairs are those of statistics. Roots need none of this: they begin as I.
    refreshed: bool,
    updates: u64,
    failures: u64,
    problem: &'static str,
}

impl<R: Real> LayerState<R> {
    /// Factors of a weight of this shape: outputs, inputs.
    pub fn new(shape: (usize, usize), options: &LayerFactors) -> Self {
        let told = options.factor_options(1, 0);
        let moments = (options.inverse == KroneckerInverse::Ekfac).then(|| Array2::zeros(shape));
        let factors = [shape.0, shape.1].map(|n| Factor::new(n, &told));
        Self { shape, factors, moments, refreshed: false, updates: 0, failures: 0, problem: "" }
    }

    /// Both factors, or none, take the Gram matrices of these rows.
    pub fn update(
        &mut self,
        inputs: &ArrayRef2<R>,
        output_gradients: &ArrayRef2<R>,
        options: &LayerFactors,
    ) -> Result<()> {
        let told = options.factor_options(inputs.nrows(), self.updates);
        let rows = [output_gradients, inputs];
        self.change(|side, factor| {
            rows.get(side)
                .map_or(Ok(()), |rows| factor.accumulate_mode(&rows.view().into_dyn(), 1, &told))
        })
    }

    /// The same for sums of Gram matrices over so many rows.
    pub fn update_by_sums(
        &mut self,
        sums: &[GramSum<R>; 2],
        rows: usize,
        options: &LayerFactors,
    ) -> Result<()> {
        let told = options.factor_options(rows, self.updates);
        self.change(|side, factor| {
            sums.get(side).map_or(Ok(()), |sum| factor.accumulate_sum(sum, &told))
        })
    }

    fn change(&mut self, change: impl Fn(usize, &mut Factor<R>) -> Result<()>) -> Result<()> {
        let mut factors = self.factors.clone();
        for (side, factor) in factors.iter_mut().enumerate() {
            change(side, factor)?;
        }
        (self.factors, self.updates) = (factors, self.updates + 1);
        Ok(())
    }

    /// Makes roots, or eigenpairs, of both factors as they are, or of none. A factor that has seen only
    /// zeros keeps its root.
    pub fn refresh(&mut self, options: &LayerFactors) -> Result<()> {
        let told = self.side_options(options)?;
        // a diagonal of squares
        let seen = self.factors.each_ref().map(|factor| factor.trace() != 0.0);
        let eigenpairs = options.inverse.keeps_eigenpairs();
        if eigenpairs && seen.contains(&false) {
            self.failures = 0;
            return Ok(());
        }
        let mut factors = self.factors.clone();
        for ((factor, told), seen) in factors.iter_mut().zip(&told).zip(seen) {
            if seen {
                factor.refresh_root(told)?;
            }
        }
        if let [Some(left), Some(right)] = factors.each_ref().map(Factor::eigenpairs) {
            check_regular(left.values(), right.values(), options.damping)?;
            if let Some(moments) = &mut self.moments {
                let product = |(i, j)| Some(*left.values().get(i)? * *right.values().get(j)?);
                *moments =
                    Array2::from_shape_fn(moments.dim(), |at| product(at).unwrap_or_default());
            }
        }
        (self.factors, self.refreshed, self.failures) = (factors, eigenpairs, 0);
        Ok(())
    }

    /// The options for the root of each factor.
    fn side_options(&self, options: &LayerFactors) -> Result<[FactorOptions; 2]> {
        let told = options.factor_options(1, self.updates);
        if options.inverse != KroneckerInverse::Balanced {
            return Ok([told; 2]);
        }
        let [left, right] = &self.factors;
        let mean = |factor: &Factor<R>, n: usize| factor.trace() / n.max(1) as f64;
        let (l, r) = (mean(left, self.shape.0), mean(right, self.shape.1));
        let pi = if l > 0.0 && r > 0.0 { (r / l).sqrt() } else { 1.0 };
        let largest = match options.damping.relative > 0.0 {
            true => {
                left.largest_eigenvalue()? / told.bias * (right.largest_eigenvalue()? / told.bias)
            }
            false => 0.0,
        };
        let root = options.damping.ridge(largest).sqrt();
        let by = |ridge| FactorOptions { damping: Damping::absolute(ridge), ..told };
        Ok([by(root / pi), by(root * pi)])
    }

    /// Both eigenbases, if directions are made in them: decoded, after as many Björck iterations as an
    /// update of the factor makes.
    pub fn bases(&self, options: &LayerFactors) -> Result<Option<[Array2<R>; 2]>> {
        match self.factors.each_ref().map(Factor::eigenpairs) {
            [Some(left), Some(right)] if self.refreshed => {
                let basis = |pairs: &Eigenpairs<R>| pairs.rectified(options.rectifications());
                Ok(Some([basis(left)?, basis(right)?]))
            }
            _ => Ok(None),
        }
    }

    /// Whether the next statistics change second moments along the eigenvectors.
    pub fn needs_moments(&self) -> bool {
        self.refreshed && self.moments.is_some()
    }

    /// `S ← β·S + (1 − β)·sum/rows`; after an error S is as it was.
    pub fn update_moments(
        &mut self,
        sum: &Array2<R>,
        rows: usize,
        options: &LayerFactors,
    ) -> Result<()> {
        let Some(moments) = &mut self.moments else { return Ok(()) };
        let told = options.factor_options(rows, 0);
        let (old, new) = (told.beta, told.weight);
        let mut next = moments.clone();
        next.zip_mut_with(sum, |s, x| *s = flushed(R::of(old * s.widen() + new * x.widen())));
        check_finite("a second moment", &next)?;
        *moments = next;
        Ok(())
    }

    /// The direction for a finite gradient, with its norm if that is to be kept.
    pub fn direction(&self, g: &ArrayRef2<R>, options: &LayerFactors) -> Result<Array2<R>> {
        let [left, right] = &self.factors;
        let mut direction = match self.bases(options)? {
            Some([left, right]) => self.in_eigenbasis([left.view(), right.view()], g, options)?,
            None if options.inverse.keeps_eigenpairs() => g.to_owned(),
            None => matmul(&matmul(&left.root(), g)?, &right.root())?,
        };
        if options.keep_norm {
            let (wanted, length) = (frobenius(g), frobenius(&direction));
            let ratio = if length > 0.0 { wanted / length } else { 1.0 };
            direction.mapv_inplace(|x| R::of(ratio * x.widen()));
        }
        Ok(direction)
    }

    /// `Q_L [(Q_Lᵀ G Q_R) / (curvature + ε)^e] Q_Rᵀ`.
    fn in_eigenbasis(
        &self,
        [left, right]: [ArrayView2<'_, R>; 2],
        g: &ArrayRef2<R>,
        options: &LayerFactors,
    ) -> Result<Array2<R>> {
        let mut x = matmul(&matmul(&left.t(), g)?, &right)?;
        let exponent = options.exponent;
        if let Some(moments) = &self.moments {
            let ridge = options.damping.ridge(largest(moments));
            let divide = |x: &mut R, s: &R| *x = divided(*x, s.widen().max(0.0) + ridge, exponent);
            Zip::from(&mut x).and(moments).for_each(divide);
        } else if let [Some(l), Some(r)] = self.factors.each_ref().map(Factor::eigenpairs) {
            let (l, r) = (l.values(), r.values());
            let ridge = options.damping.ridge(largest(l) * largest(r));
            for (mut row, l) in x.rows_mut().into_iter().zip(l) {
                for (x, r) in row.iter_mut().zip(r) {
                    *x = divided(*x, l.widen() * r.widen() + ridge, exponent);
                }
            }
        }
        matmul(&matmul(&left, &x)?, &right.t())
    }

    /// Counts an outcome that is an error as a failure.
    pub fn note(&mut self, outcome: Result<()>) {
        if let Err(error) = outcome {
            self.fail(reason(&error));
        }
    }

    /// Counts a failure.
    pub fn fail(&mut self, problem: &'static str) {
        (self.failures, self.problem) = (self.failures + 1, problem);
    }

    /// Counts failures from zero again.
    pub fn forgive(&mut self) {
        (self.failures, self.problem) = (0, "");
    }

    /// Whether it has seen statistics.
    pub fn has_started(&self) -> bool {
        self.updates > 0
    }

    /// Failures since the last good refresh.
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// Refuses to go on after too many failures.
    pub fn check_failures(&self, name: &str, options: &LayerFactors) -> Result<()> {
        if self.failures <= options.tolerated_failures {
            return Ok(());
        }
        let (failures, problem) = (self.failures, self.problem);
        Err(Error::RepeatedFailure { name: name.to_owned(), block: 0, failures, problem })
    }

    /// Adds the bytes held.
    pub fn count(&self, bytes: &mut StateBytes) {
        self.factors.iter().for_each(|factor| factor.count(bytes));
        if let Some(moments) = &self.moments {
            bytes.add("moments", moments.len() * size_of::<R>());
        }
    }

    /// Writes everything under the record's keys.
    pub fn save(&self, record: &mut Record<'_>) {
        record.count("updates", self.updates);
        record.count("failures", self.failures);
        let [left, _] = &self.factors;
        if left.eigenpairs().is_some() {
            record.scalar("refreshed", Scalar::Bool(self.refreshed));
        }
        for (axis, factor) in self.factors.iter().enumerate() {
            factor.save(&mut record.nested(&format!("factor{axis}")));
        }
        if let Some(moments) = &self.moments {
            let values: Vec<R> = moments.iter().copied().collect();
            record.tensor("moments", StateTensor::new(moments.shape(), &values));
        }
    }

    /// Reads what [`save`](Self::save) wrote.
    pub fn load(
        shape: (usize, usize),
        options: &LayerFactors,
        lookup: &Lookup<'_>,
    ) -> Result<Self> {
        let told = options.factor_options(1, 0);
        let factor = |name, n| Factor::load(n, &told, &lookup.nested(name));
        let refreshed = match options.inverse.keeps_eigenpairs().then(|| lookup.scalar("refreshed"))
        {
            None => false,
            Some(Some(Scalar::Bool(refreshed))) => *refreshed,
            Some(_) => return Err(lookup.problem("refreshed", "is missing or no flag")),
        };
        let moments = || -> Result<Array2<R>> {
            let values = lookup.values("moments", &[shape.0, shape.1])?;
            let moments = Array2::from_shape_vec(shape, values);
            moments.map_err(|error| lookup.problem("moments", error.to_string()))
        };
        Ok(Self {
            shape,
            factors: [factor("factor0", shape.0)?, factor("factor1", shape.1)?],
            moments: (options.inverse == KroneckerInverse::Ekfac).then(moments).transpose()?,
            refreshed,
            updates: lookup.count("updates")?,
            failures: lookup.count("failures")?,
            problem: "a decomposition failed before the state was saved",
        })
    }
}

/// `((Y Q_L)²)ᵀ (X Q_R)²`: the sum over rows of squared gradients along pairs of eigenvectors.
pub(super) fn moments_along<R: Real>(
    [left, right]: &[Array2<R>; 2],
    inputs: &ArrayRef2<R>,
    output_gradients: &ArrayRef2<R>,
) -> Result<Array2<R>> {
    let squares = |rows: &ArrayRef2<R>, basis: &Array2<R>| -> Result<Array2<R>> {
        Ok(matmul(rows, basis)?.mapv_into(|x| x * x))
    };
    matmul(&squares(output_gradients, left)?.t(), &squares(inputs, right)?)
}

/// `x / curvature^e`; zero stays zero, whatever it is divided by.
fn divided<R: Real>(x: R, curvature: f64, exponent: f64) -> R {
    if x == R::zero() {
        return x;
    }
    R::of(if exponent == 1.0 {
        x.widen() / curvature
    } else if exponent == 0.5 {
        x.widen() / curvature.sqrt()
    } else {
        x.widen() * curvature.powf(-exponent)
    })
}

/// The largest of some numbers, at least zero.
fn largest<'x, R: Real>(numbers: impl IntoIterator<Item = &'x R>) -> f64 {
    numbers.into_iter().fold(0.0, |largest, x| f64::max(largest, x.widen()))
}

/// Refuses a Kronecker product that its damping does not make positive definite.
fn check_regular<R: Real>(l: &Array1<R>, r: &Array1<R>, damping: Damping) -> Result<()> {
    let smallest = |x: &Array1<R>| x.iter().fold(f64::INFINITY, |low, x| f64::min(low, x.widen()));
    let ridge = damping.ridge(largest(l) * largest(r));
    if l.is_empty() || r.is_empty() || smallest(l) * smallest(r) + ridge > 0.0 {
        return Ok(());
    }
    let (rows, cols) = (l.len(), r.len());
    let what = "inverse of a Kronecker product";
    Err(Error::Decomposition { what, rows, cols, problem: SINGULAR })
}
