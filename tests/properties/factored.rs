//! Laws of second moments by rows and columns.

use crate::first_order::few;
use crate::threads::on_threads;
use eigenstep::error_feedback::ErrorFeedback;
use eigenstep::numeric::{Element, Real};
use eigenstep::optim::{Elementwise, Optim};
use eigenstep::params::{Flat, FlatMut};
use eigenstep::prelude::*;
use proptest::prelude::*;

/// A number in [-1, 1) that depends on its arguments alone.
fn noise(seed: u64, i: usize) -> f64 {
    let mut z = (seed << 32).wrapping_add(i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

fn random(seed: u64, len: usize) -> Vec<f64> {
    (0..len).map(|i| noise(seed, i)).collect()
}

fn step<R: Real>(opt: &mut dyn Optimizer<R>, shape: &[usize], w: &mut [R], g: &[R]) {
    opt.step(&mut FlatMut::new(w, shape), &Flat::new(g, shape)).unwrap();
}

/// The parameters after every step.
fn path(config: &Adafactor, shape: &[usize], start: &[f64], grads: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let mut opt = config.clone().build().unwrap();
    let mut w = start.to_vec();
    let after = grads.iter().map(|g| {
        step(&mut opt, shape, &mut w, g);
        w.clone()
    });
    after.collect()
}

#[track_caller]
fn close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let off = (found - expected).abs();
        assert!(off <= tolerance * expected.abs().max(1.0), "{found}, not {expected}");
    }
}

fn rms(x: &[f64]) -> f64 {
    (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64).sqrt()
}

fn state(opt: &dyn Optimizer<f64>, name: &str) -> Vec<f64> {
    f64::read_le(&opt.state_dict().tensors[&format!("state.param.{name}")].bytes)
}

/// The second moments of a list of matrices, and the equations of the page, as plain loops.
struct Reference {
    shape: Vec<usize>,
    t: i32,
    rows: Vec<f64>,
    columns: Vec<f64>,
    v: Vec<f64>,
    bound: Vec<f64>,
    m: Vec<f64>,
}

impl Reference {
    fn new(shape: &[usize]) -> Self {
        let numel: usize = shape.iter().product();
        let zeros = vec![0.0; numel];
        let [v, bound, m, rows, columns] = std::array::from_fn(|_| zeros.clone());
        Self { shape: shape.to_vec(), t: 0, rows, columns, v, bound, m }
    }

    /// `√V` of every element.
    fn roots(&mut self, c: &Adafactor, w: f64, g: &[f64]) -> Vec<f64> {
        let torch = c.form == AdafactorForm::Torch;
        let eps = c.eps.0.unwrap_or(if torch { f64::EPSILON } else { 1e-30 });
        let squares: Vec<f64> = g.iter().map(|g| g * g + if torch { 0.0 } else { eps }).collect();
        let [.., height, width] = *self.shape.as_slice() else {
            self.v.iter_mut().zip(&squares).for_each(|(v, s)| *v += w * (s - *v));
            return self.v.iter().map(|v| v.sqrt()).collect();
        };
        let mut roots = Vec::new();
        for (k, squares) in squares.chunks(height * width).enumerate() {
            let rows = &mut self.rows[k * height..(k + 1) * height];
            for (i, row) in rows.iter_mut().enumerate() {
                let mean = squares[i * width..(i + 1) * width].iter().sum::<f64>() / width as f64;
                *row += w * (mean - *row);
            }
            let columns = &mut self.columns[k * width..(k + 1) * width];
            for (j, column) in columns.iter_mut().enumerate() {
                let mean = squares.iter().skip(j).step_by(width).sum::<f64>() / height as f64;
                *column += w * (mean - *column);
            }
            let mean = rows.iter().sum::<f64>() / height as f64;
            let mean = if torch { mean.max(eps) } else { mean };
            let product = |i: usize| (rows[i / width] * columns[i % width] / mean).sqrt();
            roots.extend((0..height * width).map(product));
        }
        roots
    }

    fn step(&mut self, c: &Adafactor, p: &mut [f64], g: &[f64]) {
        self.t += 1;
        let t = f64::from(self.t);
        let torch = c.form == AdafactorForm::Torch;
        let w = t.powf(c.beta2_decay).max(1.0 - c.beta2_cap);
        let mut roots = self.roots(c, w, g);
        if c.ams_bound {
            for (root, bound) in roots.iter_mut().zip(&mut self.bound) {
                *bound = bound.max(*root);
                *root = (*bound / w).sqrt();
            }
        }
        let floor = if torch { c.eps.0.unwrap_or(f64::EPSILON) } else { 0.0 };
        let u: Vec<f64> = g.iter().zip(&roots).map(|(g, root)| g / root.max(floor)).collect();
        let mut rho = c.lr;
        if c.relative_step {
            rho = rho.min(1.0 / t.sqrt());
        }
        if c.warmup_init {
            rho = rho.min(1e-6 * t);
        }
        let alpha = if c.scale_parameter { rho * c.eps.1.max(rms(p)) } else { rho };
        let clip = (rms(&u) / c.d).max(1.0);
        let decay = if torch { c.lr } else { alpha } * c.weight_decay;
        for ((p, u), m) in p.iter_mut().zip(u).zip(&mut self.m) {
            let mut step = alpha * u / clip;
            if c.beta1 > 0.0 {
                *m += (1.0 - c.beta1) * (step - *m);
                step = *m;
            }
            *p = *p * (1.0 - decay) - step;
        }
    }
}

fn config() -> impl Strategy<Value = Adafactor> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let numbers = (0.0f64..0.5, -1.5f64..0.0, 0.5f64..1.0, 1.0f64..3.0, 0.0f64..0.5);
    let some = (prop::option::of(1e-12f64..1e-2), 0.0f64..0.5, 0.0f64..0.95);
    (flags, numbers, some).prop_map(|(flags, numbers, (eps1, eps2, beta1))| {
        let (original, scale_parameter, relative_step, warmup_init, ams_bound) = flags;
        let (lr, beta2_decay, beta2_cap, d, weight_decay) = numbers;
        Adafactor {
            lr,
            beta1: if beta1 < 0.3 { 0.0 } else { beta1 },
            beta2_decay,
            beta2_cap,
            eps: (eps1, eps2),
            d,
            weight_decay,
            scale_parameter,
            relative_step,
            warmup_init: warmup_init && relative_step,
            ams_bound,
            form: if original { AdafactorForm::Original } else { AdafactorForm::Torch },
            maximize: false,
        }
    })
}

fn shape() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        Just(vec![]),
        prop::collection::vec(1usize..9, 1..=2),
        prop::collection::vec(1usize..5, 3..=4),
    ]
}

proptest! {
    #![proptest_config(few())]

    /// The rule against its equations, for all options and shapes.
    #[test]
    fn adafactor(c in config(), shape in shape(), seed in 0u64..1000) {
        let numel = shape.iter().product();
        let mut p = random(seed, numel);
        let grads: Vec<Vec<f64>> = (1..6).map(|k| random(seed + 1000 * k, numel)).collect();
        let mut reference = Reference::new(&shape);
        for (g, found) in grads.iter().zip(path(&c, &shape, &p.clone(), &grads)) {
            reference.step(&c, &mut p, g);
            close(&found, &p, 1e-11);
        }
    }

    /// Gradients that are products of a row and a column lose nothing by being averaged along both.
    #[test]
    fn products_are_factored_exactly(m in 1usize..7, n in 1usize..7, seed in 0u64..1000) {
        let (a, b) = (random(seed, m), random(seed + 1, n));
        let product = |c: f64| -> Vec<f64> {
            a.iter().flat_map(|a| b.iter().map(move |b| (1.5 + a) * (1.5 + b) * c)).collect()
        };
        let grads: Vec<Vec<f64>> = [1.0, -2.0, 0.3, 4.0].map(product).to_vec();
        let config = Adafactor { lr: 0.3, eps: (Some(0.0), 1e-3), ..Adafactor::default() };
        let start = random(seed + 2, m * n);
        let matrix = path(&config, &[m, n], &start, &grads);
        let vector = path(&config, &[m * n], &start, &grads);
        for (matrix, vector) in matrix.iter().zip(&vector) {
            close(matrix, vector, 1e-12);
        }
    }

    /// Powers of two scale without rounding, so the law is exact.
    #[test]
    fn steps_do_not_depend_on_the_scale(shape in shape(), seed in 0u64..1000, k in -20i32..20) {
        let numel = shape.iter().product();
        let grads: Vec<Vec<f64>> = (1..5).map(|k| random(seed + 1000 * k, numel)).collect();
        let large: Vec<Vec<f64>> =
            grads.iter().map(|g| g.iter().map(|g| g * 2f64.powi(k)).collect()).collect();
        let start = random(seed, numel);
        for form in [AdafactorForm::Torch, AdafactorForm::Original] {
            let config = Adafactor { form, beta1: 0.5, eps: (Some(0.0), 1e-3), ..Adafactor::default() };
            prop_assert_eq!(path(&config, &shape, &start, &grads), path(&config, &shape, &start, &large));
        }
    }

    /// No step is larger than `α·d`, whatever the gradients.
    #[test]
    fn steps_are_bounded(shape in shape(), seed in 0u64..1000, d in 1.0f64..3.0) {
        let numel: usize = shape.iter().product();
        let config = Adafactor { lr: 0.3, d, ..Adafactor::original() };
        let mut opt = config.build().unwrap();
        let mut w = random(seed, numel);
        for t in 1..8 {
            let before = w.clone();
            // small gradients, then much larger ones
            let g: Vec<f64> =
                random(seed + t, numel).iter().map(|g| g * 10f64.powi(t as i32)).collect();
            step(&mut opt, &shape, &mut w, &g);
            let moved: Vec<f64> = w.iter().zip(&before).map(|(a, b)| a - b).collect();
            let alpha = 0.3f64.min(1.0 / (t as f64).sqrt()) * rms(&before).max(1e-3);
            prop_assert!(rms(&moved) <= alpha * d * (1.0 + 1e-12));
        }
    }

    /// Where nothing is measured over the tensor, matrices that are stacked know nothing of each other.
    #[test]
    fn a_stack_of_matrices_is_its_matrices(k in 1usize..5, m in 1usize..6, n in 1usize..6, seed in 0u64..1000) {
        let config = Adafactor {
            d: f64::INFINITY, scale_parameter: false, beta1: 0.5, ..Adafactor::default()
        };
        let size = m * n;
        let grads: Vec<Vec<f64>> = (1..5).map(|t| random(seed + 1000 * t, k * size)).collect();
        let start = random(seed, k * size);
        let stack = path(&config, &[k, m, n], &start, &grads);
        for i in 0..k {
            let part = |all: &[f64]| all[i * size..(i + 1) * size].to_vec();
            let own: Vec<Vec<f64>> = grads.iter().map(|g| part(g)).collect();
            let alone = path(&config, &[m, n], &part(&start), &own);
            for (stack, alone) in stack.iter().zip(&alone) {
                prop_assert_eq!(&part(stack), alone);
            }
        }
    }
}

/// Tensors whose sums several units of work take, some of them sharing a matrix.
#[test]
fn large_tensors_are_small_ones() {
    let shapes: [&[usize]; 4] = [&[600, 700], &[3, 200, 400], &[9000, 4, 7], &[2, 150_000]];
    for shape in shapes {
        let numel = shape.iter().product();
        let config = Adafactor { lr: 0.3, weight_decay: 0.1, ..Adafactor::default() };
        let run = |threads: usize| {
            on_threads(threads, || {
                let mut opt = config.clone().build().unwrap();
                let mut w = random(1, numel);
                for t in 2..5 {
                    step(&mut opt, shape, &mut w, &random(t, numel));
                }
                (w, opt.state_dict())
            })
        };
        let (found, dict) = run(1);
        assert_eq!(run(7), (found.clone(), dict), "{shape:?}");
        let (mut p, mut reference) = (random(1, numel), Reference::new(shape));
        (2..5).for_each(|t| reference.step(&config, &mut p, &random(t, numel)));
        close(&found, &p, 1e-11);
    }
}

/// What no number of the type can hold does not end a run, and where there is no gradient there is no step.
#[test]
fn extreme_gradients_give_finite_steps() {
    for config in [Adafactor::default(), Adafactor::original()] {
        for eps in [None, Some(0.0)] {
            let config = Adafactor { lr: 0.1, eps: (eps, 1e-3), ..config.clone() };
            for shape in [&[2, 3][..], &[6], &[1, 2, 3]] {
                for size in [0.0, 1e-45, 1e-40, 1e-25, 1e-19, 1e19, 1e25, f32::MAX] {
                    let mut opt: Optim<Elementwise<Adafactor>, f32> =
                        config.clone().build().unwrap();
                    let mut w = [1.0f32, -1.0, 1.0, -1.0, 1.0, -1.0];
                    step(&mut opt, shape, &mut w, &[0.0; 6]);
                    assert_eq!(w, [1.0, -1.0, 1.0, -1.0, 1.0, -1.0]);
                    for factor in [1.0, 0.5, 1e-3] {
                        let g = [size, -size, 0.0, size, 0.0, size].map(|g| g * factor);
                        step(&mut opt, shape, &mut w, &g);
                        assert!(w.iter().all(|w| w.is_finite() && w.abs() < 2.0), "{size}: {w:?}");
                    }
                    step(&mut opt, shape, &mut w, &[1.0; 6]);
                    assert!(w.iter().all(|w| w.is_finite()), "{size}: {w:?}");
                }
            }
        }
    }
}

/// Slots that are switched on in mid-run begin at zero.
#[test]
fn options_may_change_in_mid_run() {
    let shape = [4, 5];
    let mut opt = Adafactor { lr: 0.1, ..Adafactor::default() }.build().unwrap();
    let mut w = random(1, 20);
    step(&mut opt, &shape, &mut w, &random(2, 20));
    let rows = state(&opt, "row_var");
    for (name, value) in [("beta1", 0.5), ("ams_bound", 1.0), ("d", 2.0), ("form", 1.0)] {
        opt.set_option(0, name, value).unwrap();
    }
    assert_eq!(state(&opt, "row_var"), rows);
    step(&mut opt, &shape, &mut w, &random(3, 20));
    assert_eq!(opt.state_bytes().slot("exp_avg"), 160);
    assert_eq!(opt.state_bytes().slot("max_root"), 160);
    let moved = state(&opt, "exp_avg");
    opt.set_option(0, "beta1", 0.0).unwrap();
    step(&mut opt, &shape, &mut w, &random(4, 20));
    assert_eq!(state(&opt, "exp_avg"), moved);
    let error =
        opt.set_option(0, "relative_step", 0.0).map(|()| opt.set_option(0, "warmup_init", 1.0));
    let error = error.unwrap().unwrap_err().to_string();
    assert_eq!(error, "Adafactor: `warmup_init` must be false without `relative_step`, got true");
}

#[test]
fn state_that_does_not_fit_is_named() {
    let mut opt = Adafactor::default().build().unwrap();
    step(&mut opt, &[4, 5], &mut random(1, 20), &random(2, 20));
    let saved = opt.state_dict();
    let mut refused = |expected: &str, change: &dyn Fn(&mut StateDict)| {
        let mut dict = saved.clone();
        change(&mut dict);
        let error = opt.load_state_dict(&dict).unwrap_err().to_string();
        assert_eq!(error, format!("state dict: {expected}"));
        assert_eq!(opt.state_dict(), saved);
    };
    refused("`state.param.row_var`: is missing", &|dict| {
        dict.tensors.retain(|key, _| !key.contains("_var"));
    });
    refused("`state.param.col_var`: is missing", &|dict| {
        dict.tensors.retain(|key, _| !key.contains("col_var"));
    });
    refused("`state.param.row_var`: expected shape [4, 1], found [4]", &|dict| {
        dict.tensors.get_mut("state.param.row_var").unwrap().shape = vec![4];
    });
    refused("`state.param.col_var`: has a negative element", &|dict| {
        dict.tensors.get_mut("state.param.col_var").unwrap().bytes[7] |= 0x80;
    });
    refused("`state.param.variance`: is unknown to Adafactor", &|dict| {
        let rows = dict.tensors["state.param.row_var"].clone();
        dict.tensors.insert("state.param.variance".into(), rows);
    });
}

/// Wrappers change what they are for; that they lose nothing is tested for all rules.
#[test]
fn wrappers_change_one_thing() {
    let shape = [6, 7];
    let inner = Adafactor { lr: 0.1, beta1: 0.5, weight_decay: 0.1, ..Adafactor::default() };
    let run = |opt: &mut dyn Optimizer<f64>| {
        let mut w = random(1, 42);
        (2..6).for_each(|t| step(opt, &shape, &mut w, &random(t, 42)));
        w
    };
    let alone = run(&mut inner.clone().build().unwrap());
    // twice the gradient is nothing new, so that the average of equal gradients changes nothing
    let amplified = GrokFast { ema_decay: 0.0, ..GrokFast::with_inner(inner.clone()) };
    close(&run(&mut amplified.build().unwrap()), &alone, 1e-12);
    let without = WithDecay { decay_form: DecayForm::None, ..WithDecay::with_inner(inner.clone()) };
    let undecayed = Adafactor { weight_decay: 0.0, ..inner.clone() };
    assert_eq!(run(&mut without.build().unwrap()), run(&mut undecayed.build().unwrap()));
    let mut cautious = Cautious::with_inner(inner.clone()).build().unwrap();
    assert_ne!(run(&mut cautious), alone);
    let original = Adafactor { weight_decay: 0.1, ..Adafactor::original() };
    let error = Cautious::with_inner(original).build::<f64>().unwrap_err().to_string();
    assert!(error.contains("a rule whose step is its direction"), "{error}");
    let compressor = eigenstep::error_feedback::CompressorConfig::Identity;
    let feedback = ErrorFeedback { compressor, ..ErrorFeedback::rule(inner) };
    close(&run(&mut feedback.build().unwrap()), &alone, 1e-13);
}
