//! Kernel cases of second-order methods: iterations on matrices.

use super::compare::Tolerance;
use super::kernels::config;
use super::{Outcome, fail, json};
use eigenstep::linalg::{self, CoupledNewton, Damping, InverseRoot, KroneckerFit, NewtonSchulz};
use ndarray::Array2;
use serde_json::Value;

/// Kernels are compared to 1e-12, entries near zero relative to those of order one.
const KERNEL: Tolerance = Tolerance { rtol: 1e-12, atol: 1e-12 };

/// The matrix `value`: a shape and entries.
fn matrix(value: &Value) -> Outcome<Array2<f64>> {
    let array = json::array::<f64>(&json::shape(value, "shape")?, json::field(value, "data")?)?;
    array.into_dimensionality().map_err(|error| fail(error.to_string()))
}

fn matrix_at(value: &Value, key: &str) -> Outcome<Array2<f64>> {
    matrix(json::field(value, key)?)
}

fn close(tolerance: Tolerance, what: &str, found: &Array2<f64>, expected: &Array2<f64>) -> Outcome {
    if found.dim() != expected.dim() {
        return Err(fail(format!("{what}: {:?} is not {:?}", found.dim(), expected.dim())));
    }
    let flat = |a: &Array2<f64>| a.iter().copied().collect::<Vec<_>>();
    tolerance.slice(what, &flat(found), &flat(expected))
}

/// The singular values that a case states for a result.
fn singular_values(input: &Value, found: &Array2<f64>) -> Outcome {
    let (_, values, _) = linalg::svd(found)?;
    KERNEL.slice("singular values", &values.to_vec(), &json::reals(input, "singular_values")?)
}

pub fn bjorck(input: &Value) -> Outcome {
    let config = config(input, &["iterations"])?;
    let found = linalg::bjorck(&matrix_at(input, "input")?, json::count(config, "iterations")?)?;
    close(KERNEL, "V", &found, &matrix_at(input, "expect")?)?;
    singular_values(input, &found)
}

/// The schedule is the stated one, and so are the numbers.
pub fn newton_schulz(input: &Value) -> Outcome {
    let config = config(input, &["label", "coefficients", "eps"])?;
    let mut schedule = match json::text(config, "label")? {
        "muon5" => NewtonSchulz::default(),
        "modula15" => NewtonSchulz::repeated([3.0, -3.2, 1.2], 15),
        "polar_express5" => NewtonSchulz::polar_express(5),
        "polar_express10" => NewtonSchulz::polar_express(10),
        "cubic20" => NewtonSchulz::cubic(20),
        label => return Err(fail(format!("the schedule `{label}` is not understood"))),
    };
    let mut stated = Vec::new();
    for triple in json::list(config, "coefficients")? {
        stated.extend(json::numbers(triple)?);
    }
    let exact = Tolerance { rtol: 1e-15, atol: 0.0 };
    exact.slice("coefficients", &schedule.coefficients.concat(), &stated)?;
    schedule.eps = json::number(json::field(config, "eps")?)?;
    let found = schedule.orthogonalize(&matrix_at(input, "input")?)?;
    close(KERNEL, "X", &found, &matrix_at(input, "expect")?)?;
    singular_values(input, &found)
}

/// Every method against the eigenvalue form; coupled Newton in as many iterations as the reference,
/// give or take one.
pub fn inverse_root(input: &Value) -> Outcome {
    let config = config(input, &["p", "tolerance", "max_iterations"])?;
    let (a, expect) = (matrix_at(input, "input")?, json::field(input, "expect")?);
    json::only(expect, &["coupled_newton", "iterations", "residual", "eigh", "rel_diff"])?;
    let tolerance = json::number(json::field(config, "tolerance")?)?;
    let limit = json::count(config, "max_iterations")?.min(json::count(expect, "iterations")? + 1);
    let (damping, accept) = (Damping::default(), Some(1e-8));
    let limits =
        CoupledNewton { tolerance, max_iterations: limit, accept, ..CoupledNewton::DISTRIBUTED };
    let newton = InverseRoot::CoupledNewton { damping, limits };
    let higher = InverseRoot::CoupledHigherOrder {
        damping,
        order: 3,
        tolerance,
        max_iterations: 100,
        accept,
    };
    let exact = matrix_at(expect, "eigh")?;
    let rel_diff = json::number(json::field(expect, "rel_diff")?)?;
    let rtol = (10.0 * rel_diff).max(1e-9);
    let size = exact.iter().map(|x| x * x).sum::<f64>().sqrt();
    let near = Tolerance { rtol, atol: rtol * size };
    let exponent = 1.0 / json::count(config, "p")? as f64;
    for (what, method) in [
        ("eigh before", InverseRoot::eigh(damping)),
        ("eigh after", InverseRoot::Eigh { damping, perturb_before: false }),
        ("pseudo-inverse", InverseRoot::PseudoInverse { rtol: None, atol: 0.0 }),
        ("coupled Newton", newton),
        ("higher order", higher),
    ] {
        close(near, what, &method.root(&a, exponent)?, &exact)?;
    }
    let found = newton.root(&a, exponent)?;
    close(near, "coupled Newton", &found, &matrix_at(expect, "coupled_newton")?)
}

pub fn orthogonal_iteration(input: &Value) -> Outcome {
    let config = config(input, &["iterations"])?;
    let (given, expect) = (json::field(input, "input")?, json::field(input, "expect")?);
    let (a, start) = (matrix_at(given, "a")?, matrix_at(given, "p0")?);
    let count = json::count(config, "iterations")?;
    let (values, basis) = linalg::orthogonal_iteration(&a, &start, count)?;
    close(KERNEL, "P", &basis, &matrix_at(expect, "p")?)?;
    KERNEL.slice("Rayleigh quotients", &values.to_vec(), &json::reals(expect, "rayleigh")?)
}

/// Both Kronecker products and their cosines; the roots as CASPR and Shampoo combine them.
pub fn kronecker(input: &Value) -> Outcome {
    let config = config(input, &["vec", "caspr_damping"])?;
    let expect = json::field(input, "expect")?;
    let grads: Vec<_> = json::list(input, "input")?.iter().map(matrix).collect::<Outcome<_>>()?;
    let views: Vec<_> = grads.iter().map(|g| g.view()).collect();

    let shampoo = KroneckerFit::shampoo_squared(&views)?;
    let left = &shampoo.left * shampoo.right.diag().sum();
    close(KERNEL, "left", &left, &matrix_at(expect, "left")?)?;
    close(KERNEL, "right", &shampoo.right, &matrix_at(expect, "right")?)?;
    close(KERNEL, "shampoo2", &shampoo.to_dense(), &matrix_at(expect, "shampoo2")?)?;
    let best = KroneckerFit::best(&views, 10_000, 1e-15)?;
    close(KERNEL, "optimal_rank1", &best.to_dense(), &matrix_at(expect, "optimal_rank1")?)?;
    for (key, product) in [("cosine_shampoo2_H", &shampoo), ("cosine_optimal_H", &best)] {
        let expected = json::number(json::field(expect, key)?)?;
        KERNEL.number(key, product.cosine(&views)?, expected)?;
    }

    let damping = Damping::absolute(json::number(json::field(config, "caspr_damping")?)?);
    let root = |a: &Array2<f64>| InverseRoot::eigh(damping).root(a, 0.25);
    let (l, r) = (root(&left)?, root(&shampoo.right)?);
    let g = grads.first().ok_or_else(|| fail("there are no gradients"))?;
    let j = l.dot(g) + g.dot(&r);
    let caspr = l.dot(&j) + j.dot(&r);
    close(KERNEL, "caspr_direction", &caspr, &matrix_at(expect, "caspr_direction")?)?;
    close(KERNEL, "shampoo_direction", &l.dot(g).dot(&r), &matrix_at(expect, "shampoo_direction")?)
}
