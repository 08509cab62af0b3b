//! Plots as SVG text: lines over a linear or logarithmic x. A picture of the data and nothing else.

use std::fmt::Write;

use crate::figure::{Plot, short};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 60.0;
/// Colours that colour-blind people tell apart (Okabe and Ito).
const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];

/// Where values lie in the picture.
struct Scale {
    from: f64,
    to: f64,
    log: bool,
    at: f64,
    length: f64,
}

impl Scale {
    fn place(&self, value: f64) -> f64 {
        let f = |v: f64| if self.log { v.max(f64::MIN_POSITIVE).ln() } else { v };
        let part = (f(value) - f(self.from)) / (f(self.to) - f(self.from)).max(f64::MIN_POSITIVE);
        self.at + part * self.length
    }

    /// Round values to mark: 1, 2, 5 times a power of ten.
    fn ticks(&self) -> Vec<f64> {
        if self.log {
            let all = (-6..12).flat_map(|power| [1.0, 2.0, 5.0].map(|n| n * 10f64.powi(power)));
            let inside: Vec<f64> = all.filter(|v| *v >= self.from * 0.999 && *v <= self.to * 1.001).collect();
            let powers = inside.iter().copied().filter(|v| v.log10().fract().abs() < 1e-9).collect();
            return if inside.len() > 9 { powers } else { inside };
        }
        let rough = (self.to - self.from) / 6.0;
        let power = 10f64.powf(rough.max(f64::MIN_POSITIVE).log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|step| *step >= rough).unwrap_or(power);
        (0..20).map(|n| self.from + f64::from(n) * step).take_while(|v| *v <= self.to * 1.001).collect()
    }
}

/// The picture.
pub fn svg(plot: &Plot) -> String {
    let points = || plot.series.iter().flat_map(|series| series.points.iter());
    let low = points().map(|(x, _)| *x).fold(f64::INFINITY, f64::min);
    let high = points().map(|(x, _)| *x).fold(f64::NEG_INFINITY, f64::max);
    let top = points().map(|(_, y)| *y).fold(0.0, f64::max) * 1.05;
    let x = Scale {
        from: if plot.log_x { low } else { low.min(0.0) },
        to: high,
        log: plot.log_x,
        at: LEFT,
        length: WIDTH - LEFT - RIGHT,
    };
    let y = Scale { from: 0.0, to: top, log: false, at: HEIGHT - BOTTOM, length: -(HEIGHT - TOP - BOTTOM) };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{}</text>\n",
        escape(&plot.title)
    );
    axes(&mut out, plot, &x, &y);
    for (n, series) in plot.series.iter().enumerate() {
        let colour = COLOURS[n % COLOURS.len()];
        let path: Vec<String> =
            series.points.iter().map(|(a, b)| format!("{:.1},{:.1}", x.place(*a), y.place(*b))).collect();
        let _ = writeln!(
            out,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>",
            path.join(" ")
        );
        if series.points.len() <= 30 {
            for (a, b) in &series.points {
                let _ = writeln!(
                    out,
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                    x.place(*a),
                    y.place(*b)
                );
            }
        }
        let at = LEFT + 10.0 + 170.0 * n as f64;
        let _ = writeln!(out, "<text x=\"{at}\" y=\"42\" fill=\"{colour}\">{}</text>", escape(series.name));
    }
    out + "</svg>\n"
}

fn axes(out: &mut String, plot: &Plot, x: &Scale, y: &Scale) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for value in y.ticks() {
        let (at, text) = (y.place(value), short(value));
        let _ = writeln!(out, "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>");
        let _ = writeln!(out, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>", LEFT - 6.0, at + 4.0);
    }
    for value in x.ticks() {
        let (at, text) = (x.place(value), short(value));
        let _ = writeln!(
            out,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{bottom}\" y2=\"{}\" stroke=\"black\"/>",
            bottom + 5.0
        );
        let _ = writeln!(out, "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>", bottom + 20.0);
    }
    let _ = writeln!(out, "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\" stroke=\"black\"/>");
    let _ = writeln!(out, "<line x1=\"{LEFT}\" x2=\"{LEFT}\" y1=\"{TOP}\" y2=\"{bottom}\" stroke=\"black\"/>");
    let _ = writeln!(out, "<text x=\"{right}\" y=\"{}\" text-anchor=\"end\">{}</text>", HEIGHT - 18.0, escape(plot.x));
    let middle = (TOP + bottom) / 2.0;
    let _ = writeln!(
        out,
        "<text transform=\"translate(18 {middle}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        escape(plot.y)
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
