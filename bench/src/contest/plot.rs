//! The report's pictures, SVG.

use std::time::Duration;

use anyhow::{Result, anyhow};
use bench::load::Distribution;
use plotters::chart::ChartContext;
use plotters::coord::{CoordTranslate, Shift};
use plotters::prelude::{
    BLACK, BLUE, ChartBuilder, Circle, Color as _, DrawingArea, IntoDrawingArea as _, IntoLogRange as _, LineSeries,
    Palette as _, Palette99, PathElement, RED, RGBColor, SVGBackend, SeriesLabelPosition, TriangleMarker, WHITE,
};

use super::figure::Unit;
use super::report::{Entry, Report};
use super::run::Run;
use crate::table::grouped;

const PANEL: (u32, u32) = (400, 260);
const COLUMNS: usize = 3;
/// Points of a line: more of them than a panel has pixels only make the file larger.
const POINTS: usize = 300;
const WHOLE: (u32, u32) = (1_040, 480);
const GREY: RGBColor = RGBColor(150, 150, 150);
/// How far above the most entries a picture of the table goes; a max above that is drawn at the edge and told in words.
const HEADROOM: f64 = 1.4;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// plotters' errors hold the backend's type; only their text is of use.
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// One picture.
#[derive(Clone, Debug)]
pub(super) struct Plot {
    /// Its file.
    pub name: &'static str,
    /// What it shows.
    pub title: &'static str,
    pub svg: String,
}

/// All of them; of several rounds those over time show the first.
pub(super) fn all(report: &Report) -> Result<Vec<Plot>> {
    let rows = u32::try_from(report.alternatives.len().div_ceil(COLUMNS))?.max(1);
    let columns = u32::try_from(COLUMNS)?;
    Ok(vec![
        Plot {
            name: "table.svg",
            title: "Entries and max over time, with what was changed",
            svg: svg((PANEL.0 * columns, PANEL.1 * rows), |area| tables(report, area))?,
        },
        Plot { name: "drops.svg", title: "New flows dropped over time", svg: svg(WHOLE, |area| drops(report, area))? },
        Plot { name: "latency.svg", title: "Connect latency", svg: svg(WHOLE, |area| latencies(report, area))? },
    ])
}

fn svg(size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Drawn) -> Result<String> {
    let mut picture = String::new();
    {
        let area = SVGBackend::with_string(&mut picture, size).into_drawing_area();
        let drawn = (|| {
            area.fill(&WHITE)?;
            draw(&area)?;
            area.present()?;
            Ok(())
        })();
        drawn.map_err(|error: Box<dyn std::error::Error>| anyhow!("cannot draw: {error}"))?;
    }
    Ok(picture)
}

fn first(entry: &Entry) -> Option<&Run> {
    entry.runs.first()
}

fn end(report: &Report) -> f64 {
    let ends = report.alternatives.iter().filter_map(first).filter_map(|run| run.series.at_ms.last());
    seconds(ends.copied().max().unwrap_or(1_000)).max(1.0)
}

fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}

/// A panel for each alternative, on the same axes.
fn tables(report: &Report, area: &Area<'_>) -> Drawn {
    let runs = report.alternatives.iter().filter_map(first);
    let peak = runs.flat_map(|run| &run.series.count).copied().max().unwrap_or(1).max(1);
    let top = peak as f64 * HEADROOM;
    let panels = area.split_evenly((report.alternatives.len().div_ceil(COLUMNS).max(1), COLUMNS));
    for (entry, panel) in report.alternatives.iter().zip(&panels) {
        let Some(run) = first(entry) else { continue };
        table(entry, run, (end(report), top), panel)?;
    }
    Ok(())
}

fn table(entry: &Entry, run: &Run, (end, top): (f64, f64), panel: &Area<'_>) -> Drawn {
    let highest = run.series.max.iter().max().copied().unwrap_or(0);
    let beyond = if highest as f64 > top { format!(" (max up to {})", grouped(highest)) } else { String::new() };
    let mut chart = ChartBuilder::on(panel)
        .margin(8)
        .caption(format!("{}{beyond}", entry.alternative), ("sans-serif", 16))
        .x_label_area_size(30)
        .y_label_area_size(65)
        .build_cartesian_2d(0.0..end, 0.0..top)?;
    chart
        .configure_mesh()
        .x_desc("seconds")
        .x_label_formatter(&|seconds| whole(*seconds))
        .max_light_lines(1)
        .y_label_formatter(&|entries| whole(*entries))
        .draw()?;
    let points = |column: &[u64]| -> Vec<(f64, f64)> {
        let pairs = run.series.at_ms.iter().zip(column);
        thin(pairs.map(|(&at, &value)| (seconds(at), (value as f64).min(top))).collect())
    };
    for (column, color, name) in [(&run.series.max, RED, "max"), (&run.series.count, BLUE, "entries")] {
        chart
            .draw_series(LineSeries::new(points(column), color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    // What was decided before the load, as a growth of the hash table, stands at its beginning.
    let place = |at_ms: i64| (at_ms.max(0) as f64 / 1000.0).min(end);
    let (of_max, others): (Vec<_>, Vec<_>) = run.decisions.iter().partition(|one| one.setting == "max");
    if !of_max.is_empty() {
        let points = of_max.iter().map(|one| (place(one.at_ms), (one.new as f64).min(top)));
        chart
            .draw_series(points.map(|point| Circle::new(point, 4, BLACK.filled())))?
            .label("change of max")
            .legend(|(x, y)| Circle::new((x + 8, y), 4, BLACK.filled()));
    }
    if !others.is_empty() {
        chart
            .draw_series(others.iter().map(|one| TriangleMarker::new((place(one.at_ms), 0.0), 6, BLACK.filled())))?
            .label("another change")
            .legend(|(x, y)| TriangleMarker::new((x + 8, y), 6, BLACK.filled()));
    }
    legend(&mut chart)
}

fn drops(report: &Report, area: &Area<'_>) -> Drawn {
    let runs = report.alternatives.iter().filter_map(|entry| Some((entry, first(entry)?)));
    let lines: Vec<_> = runs.map(|(entry, run)| (entry, &run.series.at_ms, run.series.dropped())).collect();
    let most = lines.iter().flat_map(|(_, _, dropped)| dropped).copied().max().unwrap_or(0).max(1);
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .x_label_area_size(35)
        .y_label_area_size(80)
        .build_cartesian_2d(0.0..end(report), 0.0..most as f64 * 1.05)?;
    chart
        .configure_mesh()
        .x_desc("seconds")
        .x_label_formatter(&|seconds| whole(*seconds))
        .y_desc("new flows dropped, retries counted")
        .max_light_lines(1)
        .y_label_formatter(&|dropped| whole(*dropped))
        .draw()?;
    for (index, (entry, at, dropped)) in lines.iter().enumerate() {
        let color = Palette99::pick(index).to_rgba();
        let points = thin(at.iter().zip(dropped).map(|(&at, &dropped)| (seconds(at), dropped as f64)).collect());
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))?
            .label(entry.alternative.to_string())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(3)));
    }
    legend(&mut chart)
}

/// How long so many of a hundred connects took at most, both axes logarithmic: the rare and long ones are what counts.
fn latencies(report: &Report, area: &Area<'_>) -> Drawn {
    let runs = report.alternatives.iter().filter_map(|entry| Some((entry, &first(entry)?.outcome.all.connect)));
    // One in so many took longer; the longest stands at their number.
    let one_in = |share: f64, count: f64| (1.0 / (1.0 - share).max(f64::EPSILON)).min(count);
    let curve = |connect: &Distribution| -> Vec<(f64, f64)> {
        let count = connect.count() as f64;
        let point = |(share, time): (f64, Duration)| (one_in(share, count), (time.as_secs_f64() * 1e6).max(1.0));
        connect.curve().into_iter().map(point).collect()
    };
    let curves: Vec<_> = runs.map(|(entry, connect)| (entry, curve(connect))).collect();
    let all = || curves.iter().flat_map(|(_, curve)| curve);
    let low = all().map(|point| point.1).fold(f64::MAX, f64::min);
    let (rarest, high) = all().fold((10.0, 1.0), |(x, y): (f64, f64), point| (x.max(point.0), y.max(point.1)));
    if low > high {
        return Ok(());
    }
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .x_label_area_size(35)
        .y_label_area_size(80)
        .build_cartesian_2d((1.0..rarest).log_scale(), (low / 2.0..high * 2.0).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("percent of connects that took no longer")
        .x_label_formatter(&|one_in| format!("{}", 100.0 - 100.0 / one_in))
        .y_desc("connect latency (if connected)")
        .max_light_lines(1)
        .y_label_formatter(&|micros| Unit::Micros.words(rounded(*micros)))
        .draw()?;
    for (index, (entry, curve)) in curves.into_iter().enumerate() {
        let color = Palette99::pick(index).to_rgba();
        chart
            .draw_series(LineSeries::new(curve, color.stroke_width(2)))?
            .label(entry.alternative.to_string())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(3)));
    }
    legend(&mut chart)
}

/// Where lines begin and are low; one below it is still seen.
fn legend<'a, C: CoordTranslate>(chart: &mut ChartContext<'a, SVGBackend<'a>, C>) -> Drawn {
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.7))
        .border_style(GREY)
        .draw()?;
    Ok(())
}

/// Every so manieth point, and the last.
fn thin(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let (step, last) = (points.len().div_ceil(POINTS).max(1), points.last().copied());
    let all = points.into_iter().step_by(step);
    let mut thinned: Vec<_> = all.collect();
    thinned.extend(last.filter(|last| thinned.last() != Some(last)));
    thinned
}

/// What a connection costs with so many entries in the table: a line an alternative.
pub(super) fn sizes(lines: &[(String, Vec<(f64, f64)>)]) -> Result<String> {
    svg(WHOLE, |area| {
        let all = || lines.iter().flat_map(|(_, points)| points);
        let (fewest, most, dearest) = all().fold((f64::MAX, 1.0, 1.0), |(fewest, most, dearest), point| {
            (point.0.min(fewest), point.0.max(most), point.1.max(dearest))
        });
        if fewest > most {
            return Ok(());
        }
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .x_label_area_size(35)
            .y_label_area_size(80)
            .build_cartesian_2d((fewest.max(1.0) / 2.0..most * 2.0).log_scale(), 0.0..dearest * HEADROOM)?;
        chart
            .configure_mesh()
            .x_desc("entries in the table before the load")
            .x_label_formatter(&|entries| whole(*entries))
            .y_desc("instructions for a connection")
            .max_light_lines(1)
            .y_label_formatter(&|cost| whole(*cost))
            .draw()?;
        for (index, (name, points)) in lines.iter().enumerate() {
            let color = Palette99::pick(index).to_rgba();
            chart
                .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)).point_size(4))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(3)));
        }
        legend(&mut chart)
    })
}

fn whole(value: f64) -> String {
    grouped(rounded(value))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place on an axis of counts")]
fn rounded(value: f64) -> u64 {
    value.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinned_lines_keep_their_ends() {
        let line = |length: u32| (0..length).map(|at| (f64::from(at), 1.0)).collect::<Vec<_>>();
        for length in [0, 1, 299, 300, 301, 1_200, 1_201] {
            let (all, thinned) = (line(length), thin(line(length)));
            assert_eq!((thinned.first(), thinned.last()), (all.first(), all.last()), "{length}");
            assert!(thinned.len() <= POINTS + 1 && (length > 300 || thinned == all), "{length}: {}", thinned.len());
        }
    }
}
