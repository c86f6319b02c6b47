//! Logs of losses, from which runs are replayed.

use crate::harness::Target;
use crate::memory::bounded;
use crate::mutate;
use crate::random::Random;
use eigenstep::prelude::*;
use eigenstep::zeroth_order::{LossLog, Spsa, ZerothOrder};
use ndarray::{Array1, array};

pub struct Ledgers;

fn run(steps: usize) -> (LossLog, Array1<f32>) {
    let optimizer = Sgd { lr: 0.1, momentum: 0.9, ..Sgd::default() }.build().expect("valid");
    let estimator = Spsa::default().build::<f32>().expect("valid");
    let mut run = ZerothOrder::new(estimator, optimizer);
    let (mut w, mut log) = (array![1.0f32, -1.0, 0.5], LossLog::default());
    for _ in 0..steps {
        let report = run.step(&mut w, |w| w.mapv(|x| x * x).sum()).expect("finite").clone();
        log.record(&report, &run.optimizer);
    }
    (log, w)
}

impl Target for Ledgers {
    fn execute(&mut self, random: &mut Random) -> bool {
        let (log, _) = run(1 + random.below(3));
        let read = if random.once_in(4) {
            let mut bytes = serde_json::to_vec(&log).expect("finite");
            mutate::bytes(&mut bytes, random);
            bounded(bytes.len(), || serde_json::from_slice::<LossLog>(&bytes).ok())
        } else {
            let mut bytes = log.to_bytes();
            mutate::bytes(&mut bytes, random);
            let read = bounded(bytes.len(), || LossLog::from_bytes(&bytes).ok());
            if let Some(read) = &read {
                assert_eq!(read.to_bytes(), bytes);
            }
            read
        };
        let Some(read) = read else { return false };
        let mut optimizer =
            Sgd { lr: 0.1, momentum: 0.9, ..Sgd::default() }.build().expect("valid");
        let mut estimator = Spsa::default().build::<f32>().expect("valid");
        let mut w = array![1.0f32, -1.0, 0.5];
        read.replay(&mut estimator, &mut optimizer, &mut w).is_ok()
    }
}
