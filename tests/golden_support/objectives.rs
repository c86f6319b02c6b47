//! Objectives that cases hold as data, and models whose parameters keep the order of the case.

use super::{Outcome, json, skip};
use eigenstep::params::{ParamVisitor, Parameters};
use ndarray::ArrayD;
use serde_json::Value;

/// Named arrays in the order in which the case lists them.
#[derive(Clone, Debug)]
pub struct Model(pub Vec<(String, ArrayD<f64>)>);

impl Parameters<f64> for Model {
    fn visit_mut<'a>(&'a mut self, visitor: &mut ParamVisitor<'a, f64>) {
        for (name, value) in &mut self.0 {
            visitor.child(&*name, value);
        }
    }
}

impl Model {
    /// The parameters of a case or of its input.
    pub fn of(value: &Value) -> Outcome<Self> {
        let read = |param: &Value| {
            let shape = json::shape(param, "shape")?;
            let name = json::text(param, "name")?.to_owned();
            Ok((name, json::array(&shape, json::field(param, "init")?)?))
        };
        Ok(Self(json::list(value, "params")?.iter().map(read).collect::<Outcome<_>>()?))
    }

    /// One parameter `x`.
    pub fn vector(values: Vec<f64>) -> Self {
        Self(vec![("x".into(), ndarray::Array1::from(values).into_dyn())])
    }

    /// All elements, one parameter after another.
    pub fn flat(&self) -> Vec<f64> {
        self.0.iter().flat_map(|(_, value)| value.iter().copied()).collect()
    }

    /// Place of a parameter.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|(known, _)| known == name)
    }
}

/// A function of a flat vector.
#[derive(Clone, Debug)]
pub enum Objective {
    Linear { a: Vec<f64>, c: f64 },
    Quadratic { h: Vec<Vec<f64>>, b: Vec<f64>, c: f64 },
    Cubic { c3: Vec<f64>, c2: Vec<f64>, c1: Vec<f64> },
    Rosenbrock,
    Logistic { x: Vec<Vec<f64>>, y: Vec<f64>, l2: f64 },
    Rounded { inner: Box<Objective>, alpha: f64, low: f64, high: f64 },
}

fn rows(value: &Value, key: &str) -> Outcome<Vec<Vec<f64>>> {
    json::list(value, key)?.iter().map(json::numbers).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// A sum in numpy's order. A difference of large losses, from which a step is made, keeps what rounding
/// left in each: a cubic that runs away doubles it with every digit of the loss.
fn sum(terms: &[f64]) -> f64 {
    let (lines, rest) = terms.as_chunks::<8>();
    let Some((first, lines)) = lines.split_first() else { return rest.iter().sum() };
    let mut sums = *first;
    for line in lines {
        sums.iter_mut().zip(line).for_each(|(sum, term)| *sum += term);
    }
    let [a, b, c, d, e, f, g, h] = sums;
    let whole = ((a + b) + (c + d)) + ((e + f) + (g + h));
    rest.iter().fold(whole, |sum, term| sum + term)
}

impl Objective {
    /// The objective that `value` describes.
    pub fn of(value: &Value) -> Outcome<Self> {
        let reals = |key| json::reals::<f64>(value, key);
        let number = |key| json::number(json::field(value, key)?);
        Ok(match json::text(value, "kind")? {
            "linear" => Self::Linear { a: reals("a")?, c: number("c")? },
            "quadratic" => {
                Self::Quadratic { h: rows(value, "H")?, b: reals("b")?, c: number("c")? }
            }
            "cubic_diag" => Self::Cubic { c3: reals("c3")?, c2: reals("c2")?, c1: reals("c1")? },
            "rosenbrock" => Self::Rosenbrock,
            "logistic" => {
                Self::Logistic { x: rows(value, "X")?, y: reals("y")?, l2: number("l2")? }
            }
            "quadratic_rounded" => Self::Rounded {
                inner: Box::new(Self::Quadratic {
                    h: rows(value, "H")?,
                    b: reals("b")?,
                    c: number("c")?,
                }),
                alpha: number("alpha")?,
                low: number("qmin")?,
                high: number("qmax")?,
            },
            other => return Err(skip(format!("the runner does not know the objective `{other}`"))),
        })
    }

    /// Its value.
    pub fn at(&self, x: &[f64]) -> f64 {
        match self {
            Self::Linear { a, c } => dot(a, x) + c,
            Self::Quadratic { h, b, c } => {
                let hx: Vec<f64> = h.iter().map(|row| dot(row, x)).collect();
                0.5 * dot(x, &hx) + dot(b, x) + c
            }
            Self::Cubic { c3, c2, c1 } => {
                let terms = c3.iter().zip(c2).zip(c1).zip(x);
                let term = |(((c3, c2), c1), x): (((&f64, &f64), &f64), &f64)| {
                    c3 * x.powf(3.0) + c2 * (x * x) + c1 * x
                };
                sum(&terms.map(term).collect::<Vec<_>>())
            }
            Self::Rosenbrock => x
                .windows(2)
                .map(|w| match *w {
                    [a, b] => 100.0 * (b - a * a).powi(2) + (1.0 - a).powi(2),
                    _ => 0.0,
                })
                .sum(),
            Self::Logistic { x: rows, y, l2 } => {
                let terms = rows.iter().zip(y).map(|(row, y)| (-y * dot(row, x)).exp().ln_1p());
                terms.sum::<f64>() / rows.len() as f64 + 0.5 * l2 * dot(x, x)
            }
            Self::Rounded { inner, alpha, low, high } => {
                let rounded: Vec<f64> = x
                    .iter()
                    .map(|x| alpha * (x / alpha).round_ties_even().clamp(*low, *high))
                    .collect();
                inner.at(&rounded)
            }
        }
    }
}
