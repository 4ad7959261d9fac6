//! The page: its shell, its style, and the boxes that figures and tables stand in.

use super::{
    number,
    plot::{
        figure::{Figure, Row},
        style::DARK,
    },
};
use anyhow::Result;
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// No fonts but the reader's own; every colour is legible on its background, light and dark. A table that is wider than the page has a
/// shade where there is more of it: one that stands still, under a cover that goes with the table's ends. What lies upon it is
/// translucent for that.
const STYLE: &str = r#"
:root{color-scheme:light dark;--back:#fff;--text:#1d1d1f;--soft:#5b5b60;--line:#d5d5da;--box:#f6f6f8;--link:#0060ad;--strong:#0072e41a;
--head:#00006010;--shade:#0006}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0 auto;padding:1.2rem clamp(.8rem,3vw,2.5rem) 4rem;max-width:84rem;background:var(--back);color:var(--text);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:1.75rem;line-height:1.2;margin:.5rem 0 .8rem}
h2{font-size:1.35rem;line-height:1.25;margin:2.6rem 0 .6rem;padding-top:.8rem;border-top:1px solid var(--line)}
h3{font-size:1.08rem;margin:1.6rem 0 .4rem}
h1,h2,h3,p,code,summary,figcaption,a{overflow-wrap:anywhere}
td,th,td a,th a{overflow-wrap:break-word}
p,dl,ul{max-width:76ch;margin:.5rem 0}
a{color:var(--link)}
.answer{font-size:1.12rem;border-left:4px solid var(--link);padding:.1rem 0 .1rem .9rem;margin:1rem 0}
.running{background:var(--strong);border:1px solid var(--link);border-radius:6px;padding:.4rem .8rem;max-width:none}
.facts{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.15rem 1rem;font-size:.92rem}
.facts dt{color:var(--soft)}.facts dd{margin:0;overflow-wrap:anywhere}
nav ul{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.2rem 1.1rem}
figure{margin:1rem 0 1.6rem}
figcaption{color:var(--soft);font-size:.88rem;max-width:90ch;margin-top:.5rem}
.panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,23rem),1fr));gap:.4rem 1rem}
.panels.wide{grid-template-columns:minmax(0,46rem)}
.panels svg,.legend svg{display:block;width:100%;height:auto}
.row-title{font-weight:600;margin:1rem 0 .2rem}
.legend{display:flex;flex-wrap:wrap;gap:.1rem 1.2rem;list-style:none;padding:0;margin:.4rem 0;font-size:.9rem;max-width:none}
.legend li{display:flex;align-items:center;gap:.5rem;min-width:0;overflow-wrap:anywhere}
.legend svg{flex:none;width:42px}
.scroll{overflow-x:auto;max-width:100%;border:1px solid var(--line);border-radius:6px;
background:linear-gradient(90deg,var(--back) 40%,transparent) 0 0/2.5rem 100% no-repeat local,
linear-gradient(270deg,var(--back) 40%,transparent) 100% 0/2.5rem 100% no-repeat local,
linear-gradient(90deg,var(--shade),transparent) 0 0/.9rem 100% no-repeat,
linear-gradient(270deg,var(--shade),transparent) 100% 0/.9rem 100% no-repeat}
table{border-collapse:collapse;font-size:.9rem;min-width:100%;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .7rem;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
tr:last-child>*{border-bottom:0}
thead th{background:var(--head);font-weight:600;vertical-align:bottom}
tbody th{font-weight:600;min-width:9rem}
td:not(.n){min-width:9rem}
td.n,th.n{text-align:right}td.n{white-space:nowrap}
td a{color:inherit;text-decoration:underline dotted;text-decoration-color:var(--soft);text-underline-offset:3px}
td small,th small{display:block;color:var(--soft);font-size:.82em;font-weight:400}
td.strong{background:var(--strong)}
details{margin:.4rem 0}
summary{cursor:pointer}
details>div{padding:.2rem 0 .4rem 1.1rem}
.trial:target,section:target>h3{outline:2px solid var(--link);outline-offset:3px}
pre{background:var(--box);border:1px solid var(--line);border-radius:6px;padding:.6rem .8rem;overflow-x:auto;font-size:.82rem;line-height:1.4}
code,pre{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
code{font-size:.92em}
code span{display:inline-block;max-width:100%}
@media print{
body{max-width:none;padding:0;font-size:10.5pt}nav{display:none}
.panels{grid-template-columns:repeat(3,1fr)}.panels.few{grid-template-columns:repeat(2,1fr)}.panels.wide{grid-template-columns:15cm}
.panels svg,tr,.legend,pre{break-inside:avoid}h2,h3,.row-title{break-after:avoid}
.scroll{overflow:visible;border:0;background:none}table{font-size:8pt}th,td{padding:.25rem .4rem}
tbody th,td:not(.n){min-width:6rem}
a{color:inherit;text-decoration:none}td a{text-decoration:none}
details.drawn::details-content{content-visibility:visible;block-size:auto}
}
"#;

const DARK_STYLE: &str = "\
:root{--back:#151515;--text:#e6e6e8;--soft:#a6a6ad;--line:#3a3a3f;--box:#202023;--link:#6cb8ff;--strong:#4aa8ff33;
--head:#ffffff12;--shade:#fff6}\n";

/// The whole page; one that is `refreshed` is loaded again every ten seconds.
pub fn page(title: &str, body: &Markup, refreshed: bool) -> String {
    let style = format!("{STYLE}@media screen and (prefers-color-scheme:dark){{\n{DARK_STYLE}{DARK}}}\n");
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                @if refreshed { meta http-equiv="refresh" content="10"; }
                title { (title) }
                style { (PreEscaped(style)) }
            }
            body { (body) }
        }
    };
    page.into_string()
}

/// Text that a line may break after the separators of names, so that `adamw:lr=0.001,weight_decay=0.01` breaks between its keys and
/// not within one.
pub fn text(text: &str) -> Markup {
    let parts = text.split_inclusive([',', '/']).collect::<Vec<_>>();
    html! {
        @for (i, part) in parts.iter().enumerate() {
            @if i > 0 && !part.starts_with(char::is_whitespace) { wbr; }
            (part)
        }
    }
}

/// A figure with all its rows.
///
/// # Errors
/// When the drawing fails.
pub fn figure(figure: &Figure, caption: &str) -> Result<Markup> {
    let rows = figure.rows.iter().map(|row| row_of_panels(&figure.title, row)).collect::<Result<Vec<_>>>()?;
    Ok(html! {
        figure {
            @for row in &rows { (row) }
            figcaption { strong { (text(&figure.title)) "." } " " (caption) }
        }
    })
}

fn row_of_panels(figure: &str, row: &Row) -> Result<Markup> {
    let context = if row.title.is_empty() { figure.to_owned() } else { format!("{figure}, {}", row.title) };
    let panels = row.panels.iter().map(|panel| panel.svg(&context)).collect::<Result<Vec<_>>>()?;
    let keys = row.legend.iter().map(|key| anyhow::Ok((key.svg()?, key.name.as_str()))).collect::<Result<Vec<_>>>()?;
    let class = match row.panels.as_slice() {
        [panel] if panel.is_wide => "panels wide",
        panels if panels.len() % 3 != 0 => "panels few",
        _ => "panels",
    };
    Ok(html! {
        @if !row.title.is_empty() { p.row-title { (text(&row.title)) } }
        div class=(class) {
            @for svg in &panels { div { (PreEscaped(svg)) } }
        }
        @if !keys.is_empty() {
            ul.legend {
                @for (svg, name) in &keys { li { (PreEscaped(svg)) span { (text(name)) } } }
            }
        }
    })
}

/// A table; in the head, a leading `>` puts the column's text to the right.
pub fn table(title: &str, head: &[&str], rows: &[Vec<Cell>], caption: &str) -> Markup {
    let right: Vec<bool> = head.iter().map(|text| text.starts_with('>')).collect();
    let class = |i: usize, cell: Option<&Cell>| {
        let right = right.get(i).is_some_and(|right| *right);
        match (right, cell.is_some_and(|cell| cell.strong)) {
            (true, true) => Some("n strong"),
            (true, false) => Some("n"),
            (false, true) => Some("strong"),
            (false, false) => None,
        }
    };
    html! {
        figure {
            div.scroll tabindex="0" role="region" aria-label=(title) {
                table {
                    thead { tr { @for (i, head) in head.iter().enumerate() {
                        th scope="col" class=[class(i, None)] { (text(head.trim_start_matches('>'))) }
                    } } }
                    tbody { @for row in rows {
                        tr { @for (i, cell) in row.iter().enumerate() {
                            @if i == 0 { th scope="row" { (cell.content()) } }
                            @else { td class=[class(i, Some(cell))] { (cell.content()) } }
                        } }
                    } }
                }
            }
            figcaption { strong { (text(title)) "." } " " (caption) }
        }
    }
}

/// A cell of a table.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    text: String,
    note: Option<String>,
    href: Option<String>,
    strong: bool,
}

impl Cell {
    /// With text in it.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// With a mean in it, and in small letters below it the interval.
    pub fn estimate((mean, interval): (Option<String>, Option<String>)) -> Self {
        Self::new(mean.unwrap_or(number::NONE.to_owned())).note(interval)
    }

    /// With a link to the trials that it comes from.
    pub fn to(mut self, href: impl Into<String>) -> Self {
        self.href = Some(href.into());
        self
    }

    /// With a line in small letters below.
    pub fn note(mut self, note: Option<String>) -> Self {
        self.note = note;
        self
    }

    /// Set off from other cells, if `strong`.
    pub fn strong(mut self, strong: bool) -> Self {
        self.strong = strong;
        self
    }

    fn content(&self) -> Markup {
        html! {
            @match &self.href {
                Some(href) if self.text != number::NONE => a href=(href) { (text(&self.text)) },
                _ => (text(&self.text)),
            }
            @if let Some(note) = &self.note { small { (note) } }
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_line_breaks_between_hyperparameters_and_not_within_one() {
        for (plain, broken) in [
            ("adamw:lr=0.001,eps=1e-8", "adamw:lr=0.001,<wbr>eps=1e-8"),
            ("adam, mlp", "adam, mlp"),
            ("runs/a/b", "runs/<wbr>a/<wbr>b"),
            ("<b>,\"", "&lt;b&gt;,<wbr>&quot;"),
            ("a,", "a,"),
            ("", ""),
        ] {
            assert_eq!(super::text(plain).into_string(), broken);
        }
    }
}
