use super::super::figure::{Axis, Mark};
use super::*;
use crate::report::number::number;

fn points(values: &[(f64, f64)]) -> Vec<Point> {
    values.iter().map(|&(x, y)| Point { x, y, band: Some([y * 0.9, y * 1.1]) }).collect()
}

fn panel(points: Vec<Point>) -> Panel {
    Panel {
        title: "one & <two>".to_owned(),
        x: Axis::linear("step"),
        y: Axis::logarithmic("loss"),
        curves: vec![Curve { name: String::new(), style: 1, points, drawn: Drawn::Line }],
        ..Panel::default()
    }
}

#[test]
fn draws_whatever_was_measured() {
    for (values, polygons) in [
        (&[][..], 0),
        (&[(1.0, f64::NAN)], 0),
        (&[(1.0, 0.0)], 1),
        (&[(1.0, 2.0), (2.0, f64::INFINITY), (3.0, 1.0)], 3),
        (&[(0.0, -1.0), (1.0, 1e300)], 3),
    ] {
        let svg = panel(points(values)).svg("mlp", 1).unwrap();
        assert!(svg.starts_with("<svg role=\"img\" aria-label=\"one &amp; &lt;two&gt;: mlp\" viewBox="), "{svg}");
        assert!(svg.trim_end().ends_with("</svg>"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert_eq!(svg.matches("<polygon").count(), polygons, "{values:?}");
        assert_eq!(svg.contains("nothing was measured"), polygons == 0);
    }
}

#[test]
fn a_line_has_the_dashes_of_its_style_and_a_marker_has_none() {
    let svg = panel(points(&[(1.0, 2.0), (2.0, 1.0)])).svg("", 1).unwrap();
    assert_eq!(svg.matches("stroke-dasharray").count(), 1);
    assert!(svg.contains("stroke=\"#D55E00\" stroke-width=\"4\" stroke-dasharray=\"18 7\""), "{svg}");
}

#[test]
fn a_dotted_curve_has_the_colour_of_its_style_and_dots_of_its_own() {
    for style in 0..STYLES {
        let mut panel = panel(vec![]);
        let curve = |drawn| Curve { name: String::new(), style, points: points(&[(1.0, 2.0), (2.0, 1.0)]), drawn };
        panel.curves = vec![curve(Drawn::Line), curve(Drawn::Dotted)];
        let (svg, key) =
            (panel.svg("", 1).unwrap(), Key { name: String::new(), style, drawn: Drawn::Dotted }.svg().unwrap());
        let RGBColor(r, g, b) = colour(style);
        let dotted = format!("stroke=\"#{r:02X}{g:02X}{b:02X}\" stroke-width=\"3\" stroke-dasharray=\"3 6\"");
        assert_eq!((svg.matches(&dotted).count(), key.matches(&dotted).count()), (1, 1), "{style}: {key}");
        assert_eq!((svg.matches("<circle").count(), key.matches("<circle").count()), (2, 1), "a ring at each point");
    }
}

#[test]
fn steps_keep_their_value_until_the_next_point() {
    let mut panel = panel(vec![]);
    panel.y = Axis { range: Some([0.0, 1.0]), ..Axis::linear("share") };
    let at = |x, y| Point { x, y, band: None };
    panel.curves = vec![Curve {
        name: String::new(),
        style: 0,
        points: vec![at(0.0, 0.0), at(1.0, 1.0), at(2.0, 1.0)],
        drawn: Drawn::Steps,
    }];
    let corners = corners(&panel.svg("", 1).unwrap());
    let [(_, low), (before, level), (after, high), (_, end)] = corners[..] else { panic!("{corners:?}") };
    assert!(low == level && before == after && high == end && high < low, "{corners:?}");
}

/// The corners of the first line of style 0.
fn corners(svg: &str) -> Vec<(i32, i32)> {
    let line = svg.split("<polyline").find(|part| part.contains("#0072B2")).unwrap();
    let line = line.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
    let number = |text: &str| text.parse::<i32>().unwrap();
    line.split_whitespace().map(|pair| pair.split_once(',').unwrap()).map(|(x, y)| (number(x), number(y))).collect()
}

#[test]
fn a_long_curve_is_small_and_jumps_where_it_jumps() {
    let steps = 100_000;
    let jump = 12_345;
    let y = |t: i32| if t < jump { 1.0 } else { 0.5 * (1.0 - f64::from(t) / f64::from(steps)) };
    let at = |t: i32| Point { x: f64::from(t), y: y(t), band: None };
    let mut panel = panel(vec![]);
    panel.x = Axis { range: Some([0.0, f64::from(steps)]), ..Axis::linear("step") };
    panel.y = Axis { range: Some([0.0, 1.0]), ..Axis::linear("rate") };
    panel.curves =
        vec![Curve { name: String::new(), style: 0, points: (0..=steps).map(at).collect(), drawn: Drawn::Steps }];
    let corners = corners(&panel.svg("", 1).unwrap());
    let (first, last) = (corners[0], corners[corners.len() - 1]);
    assert!(corners.len() < 12, "{corners:?}");
    let expected = first.0 + (f64::from((last.0 - first.0) * jump) / f64::from(steps)).round() as i32;
    let jumps = corners.windows(2).filter(|pair| pair[0].0 == pair[1].0 && pair[1].1 - pair[0].1 > 100);
    assert_eq!(jumps.map(|pair| pair[0].0).collect::<Vec<_>>(), [expected], "{corners:?}");
}

#[test]
fn every_line_has_markers_as_its_legend_says() {
    let line = |style: usize, count: i32, drawn| {
        let at = |t: i32| Point { x: f64::from(t), y: 1.0 + f64::from(t), band: None };
        Curve { name: String::new(), style, points: (0..count).map(at).collect(), drawn }
    };
    for (count, drawn, fewest) in
        [(5, Drawn::Line, 5), (1000, Drawn::Line, 5), (1000, Drawn::Steps, 5), (1000, Drawn::Markers, 1000)]
    {
        for style in 0..STYLES {
            let mut panel = panel(vec![]);
            panel.curves = vec![line(style, count, drawn)];
            let markers = panel.svg("", 1).unwrap().matches("<polygon").count();
            assert!((fewest..=fewest.max(MARKERS)).contains(&markers), "{markers} of {count} {drawn:?}");
        }
    }
    // One that ends at a twentieth of the axis.
    let mut panel = panel(vec![]);
    panel.x.range = Some([0.0, 1000.0]);
    panel.curves = vec![line(0, 50, Drawn::Line)];
    assert_eq!(panel.svg("", 1).unwrap().matches("<polygon").count(), 1);
    for drawn in [Drawn::Line, Drawn::Steps, Drawn::Markers] {
        assert_eq!(Key { name: String::new(), style: 0, drawn }.svg().unwrap().matches("stroke-dasharray").count(), 0);
        let svg = Key { name: String::new(), style: 3, drawn }.svg().unwrap();
        assert_eq!(svg.matches("<polygon").count(), 1, "{svg}");
    }
}

#[test]
fn a_figure_holds_all_its_panels_and_keys() {
    let key = |name: &str, style| Key { name: name.to_owned(), style, drawn: Drawn::Line };
    let row = |title: &str| Row {
        title: title.to_owned(),
        panels: vec![panel(points(&[(1.0, 1.0)])), panel(vec![])],
        legend: vec![key("sgd \"nesterov\"", 0), key("adam", 1)],
    };
    let figure = Figure { title: "losses".to_owned(), rows: vec![row("mlp"), row("cnn")] };
    let svg = figure.svg().unwrap();
    assert!(svg.starts_with("<svg role=\"img\" aria-label=\"losses\" width=\"960\" height="), "{}", &svg[..200]);
    assert_eq!(svg.matches("one &amp; &lt;two&gt;").count(), 4);
    assert_eq!(svg.matches("sgd &quot;nesterov&quot;").count(), 2);
    assert!(svg.contains("mlp") && svg.contains("cnn") && svg.contains("prefers-color-scheme: dark"));
}

#[test]
fn long_names_have_room() {
    let name = "adamw:lr=0.002,beta1=0.95,beta2=0.999,eps=1e-8,weight_decay=0.05,".repeat(2);
    let key = Key { name: name.clone(), style: 0, drawn: Drawn::Line };
    let long = Panel { title: name.clone(), ..panel(points(&[(1.0, 1.0)])) };
    let row = Row { title: String::new(), panels: vec![long], legend: vec![key.clone(), key] };
    let figure = Figure { title: "losses".to_owned(), rows: vec![row] };
    let svg = figure.svg().unwrap();
    let field = |text: &str, name: &str| -> f64 {
        text.split(&format!(" {name}=\"")).nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
    };
    let width = 2.0 * field(&svg, "width");
    let texts: Vec<&str> = svg.split("<text").filter(|text| text.contains("weight_decay")).collect();
    assert_eq!(texts.len(), 3);
    for text in texts {
        let length = name.len() as f64 * field(text, "font-size") / 2.0;
        let start = field(text, "x") - if text.contains("middle") { length / 2.0 } else { 0.0 };
        assert!(start >= 0.0 && start + length <= width, "{start} + {length} of {width}");
    }
}

#[test]
fn the_pointer_finds_the_values_of_a_curve() {
    let last = |count: i32| 0.25 + f64::from(count - 1);
    for (count, drawn, lines, places) in [
        (1, Drawn::Line, 0, 1),
        (5, Drawn::Line, 1, 5),
        (1000, Drawn::Line, 1, 20),
        (1000, Drawn::Steps, 1, 20),
        (7, Drawn::Markers, 0, 7),
        (0, Drawn::Line, 0, 0),
    ] {
        let mut panel = panel(vec![]);
        (panel.title, panel.x, panel.y) =
            ("training loss".to_owned(), Axis::linear("training time (s)"), Axis::linear("%"));
        panel.quantity = "loss".to_owned();
        let at = |t: i32| Point { x: f64::from(t) + 0.5, y: 0.25 + f64::from(t), band: None };
        panel.curves =
            vec![Curve { name: "a & <b>".to_owned(), style: 0, points: (0..count).map(at).collect(), drawn }];
        panel.marks.push(Mark { title: "a: diverged".to_owned(), x: 0.5, y: None, style: 0, shape: Shape::Cross });
        let figure = Figure { title: String::new(), rows: vec![Row { panels: vec![panel.clone()], ..Row::default() }] };
        // On a page and in a file.
        for svg in [panel.svg("", 1).unwrap(), figure.svg().unwrap()] {
            let titles: Vec<&str> =
                svg.split("<title>").skip(1).map(|part| part.split("</title>").next().unwrap()).collect();
            assert_eq!(svg.matches("<path").count(), lines, "{count} {drawn:?}");
            assert_eq!(titles.len(), lines + places + 1, "{count} {drawn:?}: {titles:?}");
            assert_eq!(titles[titles.len() - 1], "a: diverged");
            if count > 0 {
                let y = number(last(count));
                let expected =
                    format!("a &amp; &lt;b&gt;: training time {} s, loss {y} %", number(f64::from(count) - 0.5));
                assert_eq!(titles[titles.len() - 2], expected);
            }
            if lines > 0 {
                let expected = format!("a &amp; &lt;b&gt;: loss {} % at the end", number(last(count)));
                assert_eq!(titles[0], expected);
            }
            assert!(svg.trim_end().ends_with("</g></svg>"), "on top of all else");
        }
        // What has no name tells nothing.
        panel.curves.iter_mut().for_each(|curve| curve.name.clear());
        panel.marks.clear();
        assert!(!panel.svg("", 1).unwrap().contains("<title>"));
    }
}

#[test]
fn many_curves_share_the_places_of_a_panel() {
    for curves in [1, 3, 8, 40] {
        let at = |t: i32| Point { x: f64::from(t), y: f64::from(t), band: None };
        let mut panel = panel(vec![]);
        let curve = |style: usize| Curve {
            name: style.to_string(),
            style,
            points: (0..200).map(at).collect(),
            drawn: Drawn::Line,
        };
        panel.curves = (0..curves).map(curve).collect();
        let svg = panel.svg("", 1).unwrap();
        let places = svg.matches("<circle").count();
        assert!(places <= 40.max(2 * curves) && places >= 2 * curves, "{places} for {curves} curves");
        let of_many = panel.svg("", 60).unwrap().matches("<circle").count();
        assert!(of_many <= 5.max(2 * curves) && of_many >= 2 * curves, "{of_many} for {curves} curves");
    }
}
