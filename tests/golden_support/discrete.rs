//! Gradients through categorical samples, and a step of a genetic search.

use super::compare::{Tolerance, equal, identical};
use super::grids::TOLERANCE;
use super::{Outcome, fail, json, kernels, skip};
use eigenstep::discrete::categorical::{
    exact_gradient, gumbel_softmax, reinmax, score, softmax, straight_through,
};
use eigenstep::discrete::genetic::{child, survivors};
use ndarray::{Array1, Array2, aview0};
use serde_json::Value;

fn vector(value: &Value, key: &str) -> Outcome<Array1<f64>> {
    Ok(json::reals(value, key)?.into())
}

fn check(what: &str, found: &Array1<f64>, expect: &Value) -> Outcome {
    TOLERANCE.slice(what, &found.to_vec(), &json::reals(expect, what)?)
}

pub fn gradients(case: &Value) -> Outcome {
    let config = kernels::config(case, &["tau", "tau_gumbel"])?;
    let (input, expect) = (json::field(case, "input")?, json::field(case, "expect")?);
    json::only(input, &["logits", "sample", "grad_sample", "grad_probs", "gumbel"])?;
    let hard = ["probs", "st", "st_tau_autograd", "reinmax", "reinforce_factor"];
    let soft = ["gumbel_soft", "gumbel_hard_index", "st_gumbel"];
    json::only(expect, &[&hard[..], &soft[..]].concat())?;
    let tau = json::number(json::field(config, "tau")?)?;
    let logits = vector(input, "logits")?;
    let (g, g_soft) = (vector(input, "grad_sample")?, vector(input, "grad_probs")?);
    let sample = json::count(input, "sample")?;
    check("probs", &softmax(logits.view(), 1.0)?, expect)?;
    check("st", &straight_through(logits.view(), g.view(), 1.0)?, expect)?;
    check("st_tau_autograd", &straight_through(logits.view(), g.view(), tau)?, expect)?;
    let soft = Some(g_soft.view());
    let found = reinmax(logits.view(), aview0(&sample), g.view(), soft, tau)?;
    check("reinmax", &found, expect)?;
    check("reinforce_factor", &score(logits.view(), aview0(&sample))?, expect)?;
    let tau = json::number(json::field(config, "tau_gumbel")?)?;
    let drawn = gumbel_softmax(logits.view(), vector(input, "gumbel")?.view(), tau)?;
    check("gumbel_soft", &drawn.soft, expect)?;
    let index = json::count(expect, "gumbel_hard_index")?;
    equal("gumbel_hard_index", &drawn.sample.iter().copied().collect::<Vec<usize>>(), &[index])?;
    check("st_gumbel", &drawn.gradient(g.view())?, expect)
}

fn matrix(value: &Value, key: &str) -> Outcome<Array2<f64>> {
    let rows: Vec<Vec<f64>> =
        json::list(value, key)?.iter().map(json::numbers).collect::<Outcome<_>>()?;
    let shape = (rows.len(), rows.first().map_or(0, Vec::len));
    Array2::from_shape_vec(shape, rows.concat()).map_err(|error| fail(format!("{key}: {error}")))
}

pub fn expectations(case: &Value) -> Outcome {
    let config = kernels::config(case, &["tau"])?;
    let tau = json::number(json::field(config, "tau")?)?;
    let (input, expect) = (json::field(case, "input")?, json::field(case, "expect")?);
    json::only(input, &["logits", "A", "b"])?;
    json::only(expect, &["exact_gradient", "expected_st", "expected_reinmax"])?;
    let (logits, a, b) = (vector(input, "logits")?, matrix(input, "A")?, vector(input, "b")?);
    let p = softmax(logits.view(), 1.0)?;
    let values = a.diag().map(|a| a / 2.0) + &b;
    check("exact_gradient", &exact_gradient(logits.view(), values.view())?, expect)?;
    let mut sums = [Array1::zeros(p.len()), Array1::zeros(p.len())];
    for (sample, &p) in p.iter().enumerate() {
        let g = &a.column(sample) + &b;
        let grads = [
            straight_through(logits.view(), g.view(), tau)?,
            reinmax(logits.view(), aview0(&sample), g.view(), None, tau)?,
        ];
        sums.iter_mut().zip(&grads).for_each(|(sum, grad)| sum.scaled_add(p, grad));
    }
    let [st, second] = sums;
    check("expected_st", &st, expect)?;
    check("expected_reinmax", &second, expect)
}

/// `½xᵀHx + bᵀx + c`.
fn objective(value: &Value, x: &[f64]) -> Outcome<f64> {
    json::only(value, &["kind", "H", "b", "c"])?;
    if json::text(value, "kind")? != "quadratic" {
        return Err(skip("an objective that is no quadratic"));
    }
    let x = Array1::from(x.to_vec());
    let linear = vector(value, "b")?.dot(&x);
    Ok(0.5 * x.dot(&matrix(value, "H")?.dot(&x)) + linear + json::number(json::field(value, "c")?)?)
}

fn flags(row: &Value) -> Outcome<Vec<bool>> {
    Ok(json::numbers(row)?.into_iter().map(|flag| flag != 0.0).collect())
}

pub fn genetic(case: &Value) -> Outcome {
    let config = kernels::config(case, &["elite", "offspring"])?;
    let (input, expect) = (json::field(case, "input")?, json::field(case, "expect")?);
    let parents_keys = ["objective", "parents", "parent_fitness", "parent_a", "parent_b"];
    let child_keys = ["crossover_mask", "mutation_mask", "mutation_values"];
    json::only(input, &[&parents_keys[..], &child_keys[..]].concat())?;
    json::only(expect, &["children", "child_fitness", "survivors", "survivor_fitness"])?;
    let parents: Vec<Vec<f64>> =
        json::list(input, "parents")?.iter().map(json::numbers).collect::<Outcome<_>>()?;
    let parent = |index: u32| {
        parents.get(index as usize).ok_or_else(|| fail(format!("there is no parent {index}")))
    };
    let pairs = json::integers(input, "parent_a")?.into_iter();
    let pairs = pairs.zip(json::integers(input, "parent_b")?);
    let masks =
        json::list(input, "crossover_mask")?.iter().zip(json::list(input, "mutation_mask")?);
    let values = json::list(input, "mutation_values")?;
    let mut all = parents.clone();
    let mut fitness = json::reals::<f64>(input, "parent_fitness")?;
    for ((a, b), ((crossover, mutation), values)) in pairs.zip(masks.zip(values)) {
        let (crossover, mutation) = (flags(crossover)?, flags(mutation)?);
        let born = child(parent(a)?, parent(b)?, &crossover, &mutation, &json::numbers(values)?)?;
        fitness.push(objective(json::field(input, "objective")?, &born)?);
        all.push(born);
    }
    let children = all.get(parents.len()..).unwrap_or_default();
    equal("offspring", &[children.len()], &[json::count(config, "offspring")?])?;
    let flat: Vec<f64> = children.concat();
    identical("children", &flat, matrix(expect, "children")?.as_slice().unwrap_or_default())?;
    let tolerance = Tolerance { atol: 1e-9, ..TOLERANCE };
    let born = fitness.get(parents.len()..).unwrap_or_default();
    tolerance.slice("child_fitness", born, &json::reals(expect, "child_fitness")?)?;
    // the sums of the reference, so that equal numbers stay equal
    fitness.truncate(parents.len());
    fitness.extend(json::reals::<f64>(expect, "child_fitness")?);
    let kept = survivors(&fitness, json::count(config, "elite")?);
    let rows: Vec<f64> = kept.iter().filter_map(|&i| all.get(i)).flatten().copied().collect();
    let losses: Vec<f64> = kept.iter().filter_map(|&i| fitness.get(i)).copied().collect();
    identical("survivors", &rows, matrix(expect, "survivors")?.as_slice().unwrap_or_default())?;
    identical("survivor_fitness", &losses, &json::reals(expect, "survivor_fitness")?)
}
