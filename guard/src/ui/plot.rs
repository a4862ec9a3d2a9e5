//! A recording's replay as a picture: entries and max over time, with the decisions marked.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use plotters::prelude::{
    BLACK, BLUE, ChartBuilder, Circle, Color as _, IntoDrawingArea as _, LineSeries, RED, RGBColor, SVGBackend, WHITE,
};

use crate::figures::grouped;
use crate::replay::Step;

const SIZE: (u32, u32) = (1_000, 500);
const GREY: RGBColor = RGBColor(150, 150, 150);

/// Writes the picture, SVG.
pub fn plot(steps: &[Step], file: &Path) -> Result<()> {
    let began = steps.first().map(|step| step.at).unwrap_or_default();
    let second = |step: &Step| step.at.saturating_sub(began).as_secs_f64();
    let end = steps.last().map_or(1.0, second).max(1.0);
    let highest = steps.iter().map(|step| step.count.max(step.max).max(step.recorded_max)).max().unwrap_or(1).max(1);
    let mut picture = String::new();
    {
        let area = SVGBackend::with_string(&mut picture, SIZE).into_drawing_area();
        let drawn = (|| {
            area.fill(&WHITE)?;
            let mut chart = ChartBuilder::on(&area)
                .margin(10)
                .x_label_area_size(35)
                .y_label_area_size(90)
                .build_cartesian_2d(0.0..end, 0.0..highest as f64 * 1.05)?;
            chart
                .configure_mesh()
                .x_desc("seconds")
                .y_desc("entries")
                .light_line_style(WHITE)
                .y_label_formatter(&|entries| label(*entries))
                .draw()?;
            let mut line = |value: fn(&Step) -> u64, color: RGBColor, name: &str| {
                let points = steps.iter().map(|step| (second(step), value(step) as f64));
                chart.draw_series(LineSeries::new(points, color.stroke_width(2))).map(|series| {
                    series.label(name).legend(move |(x, y)| Circle::new((x + 10, y), 4, color.filled()));
                })
            };
            line(|step| step.recorded_max, GREY, "max as recorded")?;
            line(|step| step.max, RED, "max of this policy")?;
            line(|step| step.count, BLUE, "entries")?;
            let decisions = steps.iter().filter(|step| !step.changes.is_empty());
            chart
                .draw_series(decisions.map(|step| Circle::new((second(step), step.max as f64), 4, BLACK.filled())))?
                .label("decision")
                .legend(|(x, y)| Circle::new((x + 10, y), 4, BLACK.filled()));
            chart.configure_series_labels().background_style(WHITE).border_style(GREY).draw()?;
            area.present()
        })();
        drawn.map_err(|error| anyhow!("cannot draw: {error}"))?;
    }
    std::fs::write(file, picture).with_context(|| format!("cannot write {}", file.display()))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place on an axis of counts")]
fn label(entries: f64) -> String {
    grouped(entries.round() as u64)
}
