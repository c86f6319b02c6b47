//! How workers agree on a gradient: what converges, what stalls, and what goes wrong.
// a test that fails says so by panicking, and its indices are of its own making
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use eigenstep::Error;
use eigenstep::distributed::{
    AllReduce, Comm, CompressedAllReduce, Feedback, GradExchange, LocalComm, PowerSgd,
    PowerSgdOrder, SingleProcess,
};
use eigenstep::error_feedback::Selection;
use eigenstep::error_feedback::compressor::{Compressor, Identity, TopK};
use eigenstep::state::{Dtype, Lookup, Record, StateDict, StateTensor};
use std::cell::RefCell;
use std::thread;
use std::time::Duration;

const WORKERS: usize = 4;
const DIM: usize = 8;

/// A number in [-1, 1) that depends on nothing but its arguments.
fn noise(seed: u64, i: usize) -> f64 {
    let mut z = (seed << 32).wrapping_add(i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

fn vector(seed: u64, len: usize) -> Vec<f64> {
    (0..len).map(|i| noise(seed, i)).collect()
}

/// Runs `work` for every worker in a thread of its own.
fn workers<X: Send>(count: usize, work: impl Fn(usize, LocalComm) -> X + Sync) -> Vec<X> {
    let comms = LocalComm::workers(count).unwrap();
    thread::scope(|scope| {
        let work = &work;
        let start = |(rank, comm)| scope.spawn(move || work(rank, comm));
        let threads: Vec<_> = comms.into_iter().enumerate().map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// `f(x) = Σ cⱼ(xⱼ − tⱼ)²/2`, other `c` and `t` for every worker; the gradient.
fn gradient(rank: usize, x: &[f64]) -> Vec<f64> {
    let curvature = |j: usize| 0.6 + 0.4 * noise(50 + rank as u64, j);
    let target = |j: usize| 2.0 * noise(60 + rank as u64, j);
    x.iter().enumerate().map(|(j, x)| curvature(j) * (x - target(j))).collect()
}

/// Where the sum of all workers' functions is least.
fn optimum() -> Vec<f64> {
    let at = |x: f64, j: usize| -> f64 {
        (0..WORKERS).map(|rank| gradient(rank, &[x; DIM])[j]).sum::<f64>()
    };
    // the gradient is linear in x
    (0..DIM).map(|j| at(0.0, j) / (at(0.0, j) - at(1.0, j))).collect()
}

fn top2() -> Box<dyn Compressor<f64>> {
    Box::new(TopK(Selection::Count { k: 2 }))
}

type Make<'m> = dyn Fn(usize) -> CompressedAllReduce<f64> + Sync + 'm;

fn made(feedback: Feedback<f64>, compressor: Box<dyn Compressor<f64>>) -> CompressedAllReduce<f64> {
    CompressedAllReduce::new(feedback, compressor).unwrap()
}

/// All positions of every worker.
fn descend(steps: usize, make: &Make<'_>) -> Vec<Vec<Vec<f64>>> {
    workers(WORKERS, |rank, comm| {
        let mut exchange = make(rank);
        let mut x = vec![1.0; DIM];
        let mut path = Vec::new();
        for _ in 0..steps {
            let mut g = gradient(rank, &x);
            exchange.exchange(&comm, &mut g).unwrap();
            x.iter_mut().zip(&g).for_each(|(x, g)| *x -= 0.1 * g);
            path.push(x.clone());
        }
        path
    })
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

fn at_end(steps: usize, make: &Make<'_>) -> f64 {
    let paths = descend(steps, make);
    assert!(paths.iter().all(|path| *path == paths[0]), "the workers have parted");
    distance(paths[0].last().unwrap(), &optimum())
}

/// D6: what remembers an estimate reaches the optimum; what remembers an error alone stalls near it.
#[test]
fn what_converges_and_what_stalls() {
    let ideal = |rank| Feedback::EcIdeal { optimum: gradient(rank, &optimum()) };
    for full_start in [false, true] {
        let ef21 = move |momentum| Feedback::Ef21 { momentum, full_start };
        let econtrol = move |eta| Feedback::EControl { eta, full_start };
        for feedback in
            [ef21(0.0), ef21(0.8), econtrol(Some(0.25)), econtrol(Some(0.1)), econtrol(None)]
        {
            let off = at_end(3000, &|_| made(feedback.clone(), top2()));
            assert!(off < 1e-12, "{feedback:?}: {off:e}");
        }
    }
    let off = at_end(3000, &|rank| made(ideal(rank), top2()));
    assert!(off < 1e-12, "{off:e}");
    let stalls = |feedback: Feedback<f64>| at_end(3000, &|_| made(feedback.clone(), top2()));
    let (plain, ec) = (stalls(Feedback::Plain), stalls(Feedback::Ec));
    assert!(plain > 0.1 && ec > 1e-3 && ec < plain, "plain {plain:e}, with compensation {ec:e}");
}

/// D1: without compression every kind is descent along the mean gradient, and nothing is left over.
#[test]
fn without_compression_all_are_one() {
    let mut x = vec![1.0; DIM];
    let mut path = Vec::new();
    for _ in 0..50 {
        let all: Vec<Vec<f64>> = (0..WORKERS).map(|rank| gradient(rank, &x)).collect();
        for (j, x) in x.iter_mut().enumerate() {
            *x -= 0.1 * all.iter().map(|g| g[j]).sum::<f64>() / WORKERS as f64;
        }
        path.push(x.clone());
    }
    let kinds: [&(dyn Fn(usize) -> Feedback<f64> + Sync); 6] = [
        &|_| Feedback::Plain,
        &|_| Feedback::Ec,
        &|_| Feedback::Ef21 { momentum: 0.0, full_start: false },
        &|_| Feedback::Ef21 { momentum: 0.0, full_start: true },
        &|rank| Feedback::EcIdeal { optimum: gradient(rank, &optimum()) },
        &|_| Feedback::EControl { eta: Some(0.7), full_start: false },
    ];
    for kind in kinds {
        let found = descend(50, &|rank| made(kind(rank), Box::new(Identity)));
        for (found, expected) in found[0].iter().zip(&path) {
            assert!(distance(found, expected) < 1e-12);
        }
    }
}

/// D2: EControl without gain is EF21, bit for bit.
#[test]
fn no_gain_is_ef21() {
    for full_start in [false, true] {
        let control = Feedback::EControl { eta: Some(0.0), full_start };
        let ef21 = Feedback::Ef21 { momentum: 0.0, full_start };
        let run = |feedback: Feedback<f64>| descend(60, &|_| made(feedback.clone(), top2()));
        assert_eq!(run(control), run(ef21));
    }
}

/// D3: with error compensation, `x − γ·mean e` follows descent along the gradients at `x`.
#[test]
fn compensated_descent_is_delayed_descent() {
    let paths = workers(WORKERS, |rank, comm| {
        let mut exchange = made(Feedback::Ec, top2());
        let (mut x, mut virtual_x) = (vec![1.0; DIM], vec![1.0; DIM]);
        let mut worst = 0.0f64;
        for _ in 0..100 {
            let g = gradient(rank, &x);
            let (mut mean, mut error) = (g.clone(), g.clone());
            AllReduce::default().exchange(&comm, &mut mean).unwrap();
            virtual_x.iter_mut().zip(&mean).for_each(|(x, g)| *x -= 0.1 * g);
            let mut g = g;
            exchange.exchange(&comm, &mut g).unwrap();
            x.iter_mut().zip(&g).for_each(|(x, g)| *x -= 0.1 * g);
            error.copy_from_slice(exchange.error());
            AllReduce::default().exchange(&comm, &mut error).unwrap();
            let shifted: Vec<f64> = x.iter().zip(&error).map(|(x, e)| x - 0.1 * e).collect();
            worst = worst.max(distance(&shifted, &virtual_x));
        }
        worst
    });
    assert!(paths.iter().all(|worst| *worst < 1e-12), "{paths:?}");
}

/// D5: workers that have the same gradient are one worker.
#[test]
fn equal_workers_are_one() {
    let feedback = || Feedback::EControl { eta: Some(0.1), full_start: false };
    let run = |comm: &dyn Comm| {
        let mut exchange = made(feedback(), top2());
        let mut x = vec![1.0; DIM];
        for _ in 0..40 {
            let mut g = gradient(0, &x);
            exchange.exchange(comm, &mut g).unwrap();
            x.iter_mut().zip(&g).for_each(|(x, g)| *x -= 0.1 * g);
        }
        x
    };
    let single = run(&SingleProcess);
    assert!(workers(4, |_, comm| run(&comm)).iter().all(|x| distance(x, &single) < 1e-13));
}

/// Threads that sleep at random change no bit.
#[test]
fn timing_changes_nothing() {
    let run = |sleepy: bool| {
        workers(3, |rank, comm| {
            let mut exchange = made(Feedback::Ec, top2());
            let mut sum = vec![0.0; DIM];
            for step in 0..20 {
                if sleepy {
                    let pause = (noise(step, rank).abs() * 800.0) as u64;
                    thread::sleep(Duration::from_micros(pause));
                }
                let mut g = vector(100 * step + rank as u64, DIM);
                exchange.exchange(&comm, &mut g).unwrap();
                sum.iter_mut().zip(&g).for_each(|(sum, g)| *sum += g);
            }
            sum
        })
    };
    assert_eq!(run(false), run(true));
}

/// A worker that leaves does not keep the others waiting.
#[test]
fn a_lost_worker_is_an_error() {
    let outcomes = workers(3, |rank, comm| {
        if rank == 1 {
            return None; // its end is dropped
        }
        let mut exchange = made(Feedback::Ec, top2());
        let mut g = vec![1.0; DIM];
        let error = exchange.exchange(&comm, &mut g).unwrap_err();
        assert_eq!(g, vec![1.0; DIM]);
        assert!(exchange.error().is_empty(), "nothing may have changed");
        Some(error.to_string())
    });
    for outcome in outcomes.into_iter().flatten() {
        assert_eq!(outcome, "exchange: another worker is gone");
    }
}

/// I5 and the like: refused before anything changes.
#[test]
fn bad_input() {
    let mut exchange = made(Feedback::Ec, top2());
    exchange.exchange(&SingleProcess, &mut [1.0; DIM]).unwrap();
    let kept = exchange.error().to_vec();
    for bad in [f64::NAN, f64::INFINITY] {
        let mut g = [1.0; DIM];
        g[3] = bad;
        assert!(matches!(exchange.exchange(&SingleProcess, &mut g), Err(Error::NonFinite { .. })));
    }
    let error = exchange.exchange(&SingleProcess, &mut [1.0; 5]).unwrap_err();
    assert_eq!(error.to_string(), "exchange: expected 8 elements, found 5");
    assert_eq!(exchange.error(), kept);
    for (feedback, text) in [
        (
            Feedback::EControl { eta: Some(1.0), full_start: false },
            "CompressedAllReduce: `eta` must be in [0, 1), got 1",
        ),
        (
            Feedback::Ef21 { momentum: -0.1, full_start: false },
            "CompressedAllReduce: `momentum` must be in [0, 1), got -0.1",
        ),
    ] {
        assert_eq!(
            CompressedAllReduce::<f64>::new(feedback, top2()).unwrap_err().to_string(),
            text
        );
    }
    assert!(LocalComm::workers(0).is_err());
    assert!(PowerSgd::<f64>::new(3, 3, 0, 0).is_err());
    assert!(PowerSgd::<f64>::new(usize::MAX, 3, 1, 0).is_err());
    let mut power_sgd = PowerSgd::<f64>::new(3, 3, 1, 0).unwrap();
    power_sgd.eps = f64::NAN;
    let error = power_sgd.exchange(&SingleProcess, &mut [1.0; 9]).unwrap_err();
    assert_eq!(error.to_string(), "PowerSgd: `eps` must be finite and >= 0, got NaN");
    let error = SingleProcess.all_reduce_sum(Dtype::U8, &mut [1, 2]).unwrap_err();
    assert_eq!(error.to_string(), "exchange: U8 cannot be summed");
    assert!(SingleProcess.broadcast(3, &mut vec![1]).is_err());
}

/// A worker that refuses its gradient does not leave the others waiting: all refuse the step, and go on
/// together with the next one.
#[test]
fn one_refusal_is_everyones() {
    type Boxed = Box<dyn GradExchange<f64>>;
    let alternating = || {
        let mut exchange = PowerSgd::new(8, 6, 2, 9).unwrap();
        (exchange.order, exchange.min_compression_rate) = (PowerSgdOrder::Alternating, 1.0);
        exchange
    };
    let ideal = || Feedback::EcIdeal { optimum: vec![0.5; 48] };
    let makes: [&(dyn Fn() -> Boxed + Sync); 8] = [
        &|| Box::new(AllReduce::default()),
        &|| Box::new(AllReduce::bf16()),
        &|| Box::new(made(Feedback::Ec, top2())),
        &|| Box::new(made(ideal(), top2())),
        &|| Box::new(made(Feedback::Ef21 { momentum: 0.5, full_start: true }, top2())),
        &|| Box::new(made(Feedback::EControl { eta: None, full_start: false }, top2())),
        &|| Box::new(PowerSgd::new(8, 6, 1, 9).unwrap()),
        &|| Box::new(alternating()),
    ];
    for (kind, make) in makes.iter().enumerate() {
        let run = |refused: &'static [u64]| {
            workers(3, |rank, comm| {
                let mut exchange = make();
                let mut estimates = Vec::new();
                for step in 0..6 {
                    let mut g = vector(step * 10 + rank as u64, 48);
                    if !refused.contains(&step) {
                        exchange.exchange(&comm, &mut g).unwrap();
                        estimates.push(g);
                        continue;
                    }
                    // of another length, or not a number, for one of them
                    match (rank, step % 2) {
                        (1, 0) => g[3] = f64::NAN,
                        (1, _) => g.truncate(7),
                        _ => {}
                    }
                    let before: Vec<u64> = g.iter().map(|x| x.to_bits()).collect();
                    exchange.exchange(&comm, &mut g).unwrap_err();
                    let after: Vec<u64> = g.iter().map(|x| x.to_bits()).collect();
                    assert_eq!(before, after);
                }
                estimates
            })
        };
        let found = run(&[0, 3]);
        assert!(found.iter().all(|estimates| estimates == &found[0]), "kind {kind}");
        let skipped = workers(3, |rank, comm| {
            let mut exchange = make();
            [1, 2, 4, 5].map(|step| {
                let mut g = vector(step * 10 + rank as u64, 48);
                exchange.exchange(&comm, &mut g).unwrap();
                g
            })
        });
        assert_eq!(found[0], skipped[0], "kind {kind}: a refused step has left traces");
    }
}

/// Sums that overflow are refused by all, before they are remembered.
#[test]
fn overflow_is_refused() {
    let huge = f64::MAX / 1.5;
    for feedback in [Feedback::Ec, Feedback::Ef21 { momentum: 0.0, full_start: false }] {
        let mut exchange = made(feedback, Box::new(TopK(Selection::Count { k: 1 })));
        exchange.exchange(&SingleProcess, &mut [huge, huge]).unwrap();
        let (error, estimate) = (exchange.error().to_vec(), exchange.estimate().to_vec());
        // the sum with the residual, or the difference from the estimate, is no number
        assert!(exchange.exchange(&SingleProcess, &mut [-huge, huge]).is_err());
        assert_eq!((exchange.error(), exchange.estimate()), (&error[..], &estimate[..]));
    }
    let outcomes = workers(2, |_, comm| {
        let mut g = [huge];
        AllReduce::default().exchange(&comm, &mut g).is_err() && g == [huge]
    });
    assert_eq!(outcomes, [true, true]);
}

/// What PowerSGD sends does not depend on the size of gradients, and it sends all of a gradient that
/// has a smaller rank than its factors.
#[test]
fn power_sgd_has_no_scale() {
    let trained = |scale: f64, rank: usize| {
        let mut exchange = PowerSgd::<f64>::new(8, 6, rank, 9).unwrap();
        exchange.min_compression_rate = 0.0;
        let mut longest = 0.0f64;
        for _ in 0..200 {
            // of rank 1
            let mut g: Vec<f64> =
                (0..48).map(|i| scale * noise(1, i / 6) * noise(2, i % 6)).collect();
            let length = distance(&g, &[0.0; 48]);
            exchange.exchange(&SingleProcess, &mut g).unwrap();
            longest = longest.max(distance(exchange.error(), &[0.0; 48]) / length);
        }
        (longest, distance(exchange.error(), &[0.0; 48]) / scale)
    };
    for rank in [1, 2] {
        for scale in [1.0, 1e-6, 1e-12, 1e-100] {
            let (longest, left) = trained(scale, rank);
            assert!(longest < 1e-6 && left < 1e-6, "rank {rank}, {scale:e}: {longest:e}, {left:e}");
        }
    }
}

/// In both orders, and however often a step compresses, the mean of what is left, and the estimate, are
/// the mean of what came.
#[test]
fn power_sgd_loses_nothing() {
    let orders = [PowerSgdOrder::Both, PowerSgdOrder::Alternating];
    for (order, iterations) in orders.into_iter().flat_map(|order| [(order, 1), (order, 3)]) {
        workers(3, |rank, comm| {
            let mut exchange = PowerSgd::new(8, 6, 2, 9).unwrap();
            (exchange.order, exchange.min_compression_rate) = (order, 1.0);
            exchange.iterations = iterations;
            for step in 0..6 {
                let mut g = vector(step * 10 + rank as u64, 48);
                let mut came: Vec<f64> =
                    g.iter().zip(exchange.error()).map(|(g, e)| g + e).collect();
                exchange.exchange(&comm, &mut g).unwrap();
                let mut left = exchange.error().to_vec();
                AllReduce::default().exchange(&comm, &mut came).unwrap();
                AllReduce::default().exchange(&comm, &mut left).unwrap();
                let back: Vec<f64> = g.iter().zip(&left).map(|(g, e)| g + e).collect();
                assert!(distance(&back, &came) < 1e-12, "{order:?}");
            }
        });
    }
}

/// Factors of one column send more of a gradient in every exchange of a step; each is paid for.
#[test]
fn iterations_send_what_is_left() {
    for order in [PowerSgdOrder::Both, PowerSgdOrder::Alternating] {
        let left = |iterations| {
            let mut exchange = PowerSgd::<f64>::new(8, 6, 1, 9).unwrap();
            (exchange.order, exchange.min_compression_rate) = (order, 0.0);
            exchange.iterations = iterations;
            let mut g = vector(1, 48);
            let length = distance(&g, &[0.0; 48]);
            exchange.exchange(&SingleProcess, &mut g).unwrap();
            if order == PowerSgdOrder::Both {
                assert_eq!(exchange.bytes_sent(), 8 * (8 + 6) * iterations);
            }
            distance(exchange.error(), &[0.0; 48]) / length
        };
        let parts = [1, 2, 3, 100].map(left);
        assert!(parts.is_sorted_by(|a, b| a > b), "{order:?}: {parts:?}");
        assert!(parts[3] < 0.3, "{order:?}: {parts:?}");
    }
    let mut none = PowerSgd::<f64>::new(8, 6, 1, 9).unwrap();
    none.iterations = 0;
    let error = none.exchange(&SingleProcess, &mut vector(1, 48)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "PowerSgd: `iterations` must be at least 1 and at most 10000, got 0"
    );
}

/// Bytes on the wire: a tenth of a vector costs about a tenth, low-rank factors what they hold.
#[test]
fn messages_are_small() {
    let mut whole = AllReduce::default();
    GradExchange::<f64>::exchange(&mut whole, &SingleProcess, &mut vector(1, 1000)).unwrap();
    assert_eq!(GradExchange::<f64>::bytes_sent(&whole), 8000);
    let mut half = AllReduce::bf16();
    GradExchange::<f64>::exchange(&mut half, &SingleProcess, &mut vector(1, 1000)).unwrap();
    assert_eq!(GradExchange::<f64>::bytes_sent(&half), 2000);
    let tenth = Box::new(TopK(Selection::TopK { density: 0.1 }));
    let mut exchange = made(Feedback::Ec, tenth);
    exchange.exchange(&SingleProcess, &mut vector(1, 1000)).unwrap();
    assert!((1200..1300).contains(&exchange.bytes_sent()), "{}", exchange.bytes_sent());
    let mut power_sgd = PowerSgd::<f64>::new(40, 25, 2, 0).unwrap();
    power_sgd.exchange(&SingleProcess, &mut vector(1, 1000)).unwrap();
    assert_eq!(power_sgd.bytes_sent(), 8 * 2 * 65);
}

/// bfloat16: the mean, within its precision; small numbers are not lost.
#[test]
fn bf16_is_near() {
    let found = workers(4, |rank, comm| {
        let mut g = vec![1.0 + rank as f64, 1e-30];
        AllReduce::bf16().exchange(&comm, &mut g).unwrap();
        g
    });
    assert_eq!(found[0][0], 2.5);
    assert!((found[3][1] / 1e-30 - 1.0).abs() < 0.01);
}

fn resumes(make: &dyn Fn() -> Box<dyn GradExchange<f64>>) {
    let (mut exchange, mut again) = (make(), make());
    for step in 0..5 {
        exchange.exchange(&SingleProcess, &mut vector(step, 48)).unwrap();
    }
    let mut dict = StateDict::new("exchange");
    exchange.save(&mut Record::new("x", &mut dict));
    let used = RefCell::default();
    again.load(&Lookup::new("x", &dict, &used)).unwrap();
    for step in 5..10 {
        let (mut a, mut b) = (vector(step, 48), vector(step, 48));
        exchange.exchange(&SingleProcess, &mut a).unwrap();
        again.exchange(&SingleProcess, &mut b).unwrap();
        assert_eq!(a, b);
    }
    assert_eq!(exchange.bytes_sent(), again.bytes_sent());
    // vectors of different lengths would be cut silently
    let whole = dict.clone();
    let held = whole.tensors.keys().filter(|key| !whole.tensors[*key].bytes.is_empty());
    let held: Vec<&String> = held.collect();
    // one alone has nothing to differ from
    for key in held.iter().copied().filter(|_| held.len() > 1) {
        let mut broken = whole.clone();
        broken.tensors.insert(key.clone(), StateTensor::new(&[1], &[0.0f64]));
        let used = RefCell::default();
        assert!(again.load(&Lookup::new("x", &broken, &used)).is_err(), "{key}");
    }
    dict.scalars.clear();
    assert!(again.load(&Lookup::new("x", &dict, &used)).is_err());
}

#[test]
fn every_exchange_resumes() {
    for feedback in [
        Feedback::Ec,
        Feedback::Ef21 { momentum: 0.5, full_start: true },
        Feedback::EControl { eta: None, full_start: false },
    ] {
        resumes(&|| Box::new(made(feedback.clone(), top2())));
    }
    for order in [PowerSgdOrder::Both, PowerSgdOrder::Alternating] {
        resumes(&|| {
            let mut exchange = PowerSgd::new(8, 6, 1, 3).unwrap();
            exchange.order = order;
            Box::new(exchange)
        });
    }
    resumes(&|| Box::new(AllReduce::bf16()));
}
