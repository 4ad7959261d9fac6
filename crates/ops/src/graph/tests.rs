use super::*;
use candle_core::{Device, Var};

fn var(values: &[f64]) -> Var {
    Var::new(values, &Device::Cpu).unwrap()
}

const BOTH: [fn(&Tensor) -> Result<GradStore>; 2] = [Tensor::backward, super::backward];

/// The product of the factors.
fn product(factors: &[&Tensor]) -> Result<Tensor> {
    let kept = factors
        .iter()
        .map(|factor| detached_contiguous([factor]).map(|[factor]| factor))
        .collect::<Result<Vec<_>>>()?;
    let without = |left_out: usize| {
        let factors = kept.iter().enumerate().filter(|(at, _)| *at != left_out);
        factors.map(|(_, factor)| factor).try_fold(kept[0].ones_like()?, |y, factor| y * factor)
    };
    let y = without(kept.len())?;
    let others = (0..kept.len()).map(without).collect::<Result<Vec<_>>>()?;
    differentiable("product", factors, y, move |dy| others.iter().map(|other| (other * dy).map(Some)).collect())
}

/// The gradients by the variables, of the sum of what `f` makes of them, several times from the same graph.
fn gradients<const N: usize>(vars: [&Var; N], f: impl Fn([&Tensor; N]) -> Result<Tensor>) -> [Vec<f64>; N] {
    let y = f(vars.map(Var::as_tensor)).unwrap().sum_all().unwrap();
    let [first, second, third] = [Tensor::backward, super::backward, Tensor::backward].map(|backward| {
        let store = backward(&y).unwrap();
        // Candle's own gradients of what has been handed on are not in its store.
        assert_eq!(store.get_ids().count(), N);
        vars.map(|var| store.get(var).expect("a variable has a gradient").to_vec1::<f64>().unwrap())
    });
    assert_eq!([&first, &first], [&second, &third]);
    first
}

#[test]
fn any_number_of_inputs() {
    let vars = [2., 3., 5., 7., 11.].map(|x| var(&[x, 2. * x]));
    let [a, b, c, d, e] = vars.each_ref();
    assert_eq!(gradients([a], |[a]| product(&[a])), [[1., 1.]]);
    assert_eq!(gradients([a, b], |[a, b]| product(&[a, b])), [[3., 6.], [2., 4.]]);
    assert_eq!(gradients([a, b, c], |inputs| product(&inputs)), [[15., 60.], [10., 40.], [6., 24.]]);
    for chained in [false, true] {
        let found = gradients([a, b, c, d, e], |inputs| match chained {
            true => product(&[&product(&inputs[..1])?, inputs[1], inputs[2], &product(&inputs[3..])?]),
            false => product(&inputs),
        });
        let product = 2. * 3. * 5. * 7. * 11.;
        let expected = [2., 3., 5., 7., 11.].map(|x| [product / x, 16. * product / x]);
        assert_eq!(found, expected);
    }
}

/// A value that several operations read, of both kinds, and one operation twice.
#[test]
fn gradients_add_up() {
    let [a, b] = [var(&[2., -1.]), var(&[3., 4.])];
    let found = gradients([&a, &b], |[a, b]| {
        let y = product(&[a, b])?;
        // y^2 + y b + y^2 + y
        product(&[&y, &y])? + product(&[&y, b])? + (&y * &y)? + &y
    });
    // y = a b: dy = 4 y + b + 1; by a b dy, by b a dy + y
    let dy = [4. * 6. + 3. + 1., 4. * -4. + 4. + 1.];
    assert_eq!(found, [[3. * dy[0], 4. * dy[1]], [2. * dy[0] + 6., -dy[1] - 4.]]);
}

/// What candle reads and makes between two operations is in its graph.
#[test]
fn candle_stands_between() {
    let a = var(&[2., -1., 3.]);
    let found = gradients([&a], |[a]| {
        let turned = product(&[a, a])?.reshape((3, 1))?.t()?;
        product(&[&turned.broadcast_as((2, 3))?, &turned.broadcast_as((2, 3))?])
    });
    // 2 a^4
    assert_eq!(found, [[8. * 8., -8., 8. * 27.]]);
    // A variable that candle reads too.
    assert_eq!(gradients([&a], |[a]| product(&[a, a])? + (a * 3.)?), [[7., 1., 9.]]);
    // What is detached has no gradient.
    let y = product(&[&product(&[&a, &a]).unwrap().detach(), &a]).unwrap();
    assert_eq!(y.sum_all().unwrap().backward().unwrap().get(&a).unwrap().to_vec1::<f64>().unwrap(), [4., 1., 9.]);
    assert!(!product(&[&y.detach()]).unwrap().track_op());
}

/// No entry of the table, and no tensor of a chain, outlives the values.
#[test]
fn nothing_is_left() {
    let a = var(&[2., -1.]);
    let mut y = product(&[&a]).unwrap();
    let mut ids = Vec::new();
    for _ in 0..100 {
        ids.push(y.id());
        y = product(&[&y, &a]).unwrap();
    }
    // Only the last value is alive: the others are outside of the graph.
    assert!(ids.iter().all(|id| !lock(&TOKENS).contains_key(id)) && lock(&TOKENS).contains_key(&y.id()));
    ids.push(y.id());
    let loss = y.sum_all().unwrap();
    drop(y);
    assert_eq!(loss.backward().unwrap().get(&a).unwrap().to_vec1::<f64>().unwrap()[1], 101.);
    drop(loss);
    assert!(ids.iter().all(|id| !lock(&TOKENS).contains_key(id)));
}

/// Rayon may run another task's backward pass on a thread in the midst of one.
#[test]
fn a_pass_within_a_pass_has_its_own_gradients() {
    for (outer, inner) in BOTH.into_iter().flat_map(|outer| BOTH.map(|inner| (outer, inner))) {
        let (a, b) = (var(&[2.]), var(&[3.]));
        let other = product(&[&b, &b]).unwrap();
        let y = differentiable("outer", &[&a], a.copy().unwrap().detach(), move |dy| {
            let store = inner(&other)?;
            Ok(vec![Some((dy * store.get(&b).expect("the inner pass has its gradient"))?)])
        });
        let store = outer(&product(&[&y.unwrap(), &a]).unwrap()).unwrap();
        // a a, whose first factor has the gradient 6 by a
        assert_eq!(store.get(&a).unwrap().to_vec1::<f64>().unwrap(), [2. * 6. + 2.]);
        assert_eq!(store.get_ids().count(), 1);
    }
}

#[test]
fn an_error_is_passed_on() {
    let a = var(&[2.]);
    for backward in BOTH {
        let y = differentiable("failing", &[&a], a.copy().unwrap().detach(), |_| fail!("no gradient today")).unwrap();
        assert!(backward(&product(&[&y]).unwrap()).unwrap_err().to_string().contains("no gradient today"));
    }
    // It leaves nothing behind.
    assert!(COLLECTED.with_borrow(Option::is_none));
}
