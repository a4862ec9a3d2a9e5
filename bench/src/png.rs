//! `conntrack-guard-bench png`: SVG pictures as PNG beside them, for what shows no SVG. On the machine that has fonts, not in
//! the guest. Only with the feature `png`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::fontdb::{Database, Family, Query};
use resvg::usvg::{Options, Tree};

/// What the plots' text is set in, the first of these that is here.
const FAMILIES: [&str; 4] = ["DejaVu Sans", "Liberation Sans", "Noto Sans", "FreeSans"];
/// Pixels of the PNG for one of the SVG: its small text must still be read.
const SCALE: f32 = 1.25;

/// What the user asks for.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// SVG files; each PNG lies beside its own
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Draws all of them.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let options = options()?;
    for file in &arguments.files {
        ensure!(file.extension().is_some_and(|extension| extension == "svg"), "{}: is no .svg file", file.display());
        draw(file, &options).with_context(|| file.display().to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn options() -> Result<Options<'static>> {
    let mut options = Options::default();
    let fonts = options.fontdb_mut();
    fonts.load_system_fonts();
    let Some(family) = FAMILIES.iter().find(|family| has(fonts, family)) else {
        bail!("this machine has none of the fonts {}: install the package fonts-dejavu-core", FAMILIES.join(", "));
    };
    fonts.set_sans_serif_family(*family);
    Ok(options)
}

fn has(fonts: &Database, family: &str) -> bool {
    fonts.query(&Query { families: &[Family::Name(family)], ..Query::default() }).is_some()
}

fn draw(file: &Path, options: &Options<'_>) -> Result<()> {
    let tree = Tree::from_str(&fs::read_to_string(file)?, options)?;
    let size = tree.size().to_int_size().scale_by(SCALE).context("a picture without a size")?;
    let mut pixels = Pixmap::new(size.width(), size.height()).context("a picture without a size")?;
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
    let png = file.with_extension("png");
    fs::write(&png, pixels.encode_png()?).with_context(|| png.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_drawn_and_not_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let (with, without) = (folder.path().join("with.svg"), folder.path().join("without.svg"));
        let picture = |text: &str| {
            format!(
                "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"80\" height=\"40\"><rect width=\"80\" height=\"40\" \
                 fill=\"#FFFFFF\"/><text x=\"5\" y=\"25\" font-family=\"sans-serif\" font-size=\"16\">{text}</text></svg>"
            )
        };
        fs::write(&with, picture("entries")).unwrap();
        fs::write(&without, picture("")).unwrap();
        run(&Arguments { files: vec![with.clone(), without.clone()] }).unwrap();
        let dark = |file: &Path| {
            let pixels = Pixmap::load_png(file.with_extension("png")).unwrap();
            assert_eq!((pixels.width(), pixels.height()), (100, 50));
            pixels.pixels().iter().filter(|pixel| pixel.red() < 128).count()
        };
        assert_eq!(dark(&without), 0);
        assert!(dark(&with) > 50, "{}", dark(&with));
    }

    #[test]
    fn a_file_that_is_no_picture_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("broken.svg");
        fs::write(&file, "<svg").unwrap();
        let error = run(&Arguments { files: vec![file] }).unwrap_err();
        assert!(error.to_string().contains("broken.svg"), "{error:#}");
        assert!(run(&Arguments { files: vec!["plot.txt".into()] }).unwrap_err().to_string().contains("no .svg"));
    }
}
