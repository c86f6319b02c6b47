//! The state of a method over a window: the window, and the direction as a combination of its
//! gradients.

use super::compressed_window::CompressedWindow;
use super::compression::Compression;
use crate::error::{Error, Result};
use crate::numeric::Real;
use crate::optim::{Direction, Layout, Scope, VectorMemory, VectorStep};
use crate::state::{Lookup, Record, StateBytes, StateTensor};

/// Options of a method's window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WindowOptions {
    /// Number of gradients in the window.
    pub capacity: usize,
    /// How the window is compressed.
    pub compression: Compression,
    /// Whether an average of the gradients is kept, too.
    pub averages: bool,
    /// Which parameters form one vector.
    pub scope: Scope,
    /// L2 regularisation: this multiple of the parameter is added to the gradient before everything
    /// else.
    pub l2: f64,
    /// Consecutive failed decompositions that are tolerated.
    pub tolerated_failures: u64,
}

/// The state of a [`WindowMethod`](super::WindowMethod).
///
/// The direction is `Σ cᵢgᵢ + s·v`. It is never stored, but computed piece by piece where it is used.
#[derive(Clone, Debug)]
pub struct WindowMemory<R> {
    gradients: CompressedWindow<R>,
    coefficients: Vec<f64>,
    /// The average `v` of gradients, and its weight `s`.
    average: Option<(Vec<R>, f64)>,
    failures: u64,
    problem: &'static str,
}

impl<R: Real> WindowMemory<R> {
    pub(super) fn new(options: &WindowOptions, layout: &Layout) -> Self {
        let WindowOptions { capacity, compression, averages, .. } = options;
        Self {
            gradients: CompressedWindow::new(compression, *capacity, layout),
            coefficients: Vec::new(),
            average: averages.then(|| (vec![R::zero(); layout.numel()], 0.0)),
            failures: 0,
            problem: "",
        }
    }

    pub(super) fn load(
        options: &WindowOptions,
        layout: &Layout,
        lookup: &Lookup<'_>,
    ) -> Result<Self> {
        let WindowOptions { capacity, compression, averages, .. } = options;
        let gradients = CompressedWindow::load(compression, *capacity, layout, lookup)?;
        let average = || Ok((lookup.values("average", &[layout.numel()])?, 0.0));
        Ok(Self {
            gradients,
            coefficients: Vec::new(),
            average: averages.then(average).transpose()?,
            failures: lookup.count("failures")?,
            problem: "a decomposition failed before the state was saved",
        })
    }

    /// Updates the average, `v ← βv + (1 − β)g`, with the newest gradient as the window stores it.
    /// Returns the inner products `⟨gᵢ, v⟩`.
    pub(super) fn average(&mut self, beta: f64, weight: f64) -> Option<Vec<f64>> {
        let window = &self.gradients.window;
        let (v, held) = self.average.as_mut()?;
        *held = weight;
        let decay = R::of(beta);
        v.iter_mut().for_each(|x| *x *= decay);
        let mut newest = vec![0.0; window.count()];
        if let Some(place) = newest.get_mut(window.newest()) {
            *place = 1.0 - beta;
        }
        window.combine(&newest, 0, v);
        Some(window.products::<[R]>(v))
    }

    /// Sets the coefficients of this step. After an error the direction is zero.
    pub(super) fn set_coefficients(&mut self, coefficients: Result<Vec<f64>>) {
        let newest = self.gradients.window.newest();
        if self.gradients.window.gram(newest, newest).is_nan() {
            // a NaN that was let in stays visible; the square of finite gradients is never NaN
            self.coefficients = vec![f64::NAN; self.gradients.window.count()];
            return;
        }
        match coefficients {
            Ok(coefficients) => {
                self.coefficients = coefficients;
                self.failures = 0;
            }
            Err(error) => {
                self.coefficients.clear();
                if let Some((_, weight)) = &mut self.average {
                    *weight = 0.0;
                }
                self.failures += 1;
                self.problem = match error {
                    Error::Decomposition { problem, .. } => problem,
                    _ => "the window does not fit",
                };
            }
        }
    }

    /// Stores a gradient.
    pub(super) fn update(&mut self, step: &VectorStep<'_, R>) {
        self.gradients.update(step);
    }

    /// The window of gradients.
    pub fn window(&self) -> &super::GradWindow<R> {
        &self.gradients.window
    }
}

impl<R: Real> Direction<R> for WindowMemory<R> {
    fn compute(&self, offset: usize, out: &mut [R]) {
        match &self.average {
            Some((v, weight)) if *weight != 0.0 => {
                let weight = R::of(*weight);
                let v = v.get(offset..).unwrap_or_default();
                out.iter_mut().zip(v).for_each(|(x, &v)| *x = weight * v);
            }
            _ => out.fill(R::zero()),
        }
        self.gradients.window.combine(&self.coefficients, offset, out);
    }
}

impl<R: Real> VectorMemory for WindowMemory<R> {
    fn count(&self, bytes: &mut StateBytes) {
        self.gradients.count(bytes);
        let average = self.average.as_ref().map_or(0, |(v, _)| size_of_val(v.as_slice()));
        bytes.add("average", average);
    }

    fn save(&self, record: &mut Record<'_>) {
        self.gradients.save(record);
        if let Some((v, _)) = &self.average {
            record.tensor("average", StateTensor::new(&[v.len()], v));
        }
        record.count("failures", self.failures);
    }

    fn failures(&self) -> Option<(u64, &'static str)> {
        (self.failures > 0).then_some((self.failures, self.problem))
    }
}
