//! Command templates: `Rscript train.R {train_data} {model}`, with the braces of Python's
//! `str.format`, the way chapkit and `MLproject` files have them.

use std::collections::BTreeMap;

/// Every name a template may use, with the file of the workspace it stands for. Some files have
/// two names, the one of chapkit and the one of `MLproject` files.
///
/// `geo_file` alone is empty when the request came without geometry.
pub const PLACEHOLDERS: [(&str, &str); 13] = [
    ("config_file", "config.yml"),
    ("data_file", "data.csv"),
    ("future_data", "future.csv"),
    ("future_file", "future.csv"),
    ("geo_file", "geo.json"),
    ("historic_data", "historic.csv"),
    ("historic_file", "historic.csv"),
    ("model", "model"),
    ("model_config", "config.yml"),
    ("out_file", "predictions.csv"),
    ("output_file", "predictions.csv"),
    ("polygons", "geo.json"),
    ("train_data", "data.csv"),
];

/// A command with placeholders, checked when the project is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// The name and the file.
    File(String, String),
}

/// Why a template cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error(
        "unknown placeholder {{{name}}}; known are {known}; braces that are meant as such are \
         written twice"
    )]
    Unknown { name: String, known: String },
    #[error("single {brace:?} at byte {at}; braces that are meant as such are written twice")]
    Single { brace: char, at: usize },
}

impl Template {
    /// Reads a template. `parameters` adds names for more files of the workspace, or changes what
    /// a name stands for.
    pub fn parse(text: &str, parameters: &BTreeMap<String, String>) -> Result<Self, TemplateError> {
        let mut files: BTreeMap<&str, &str> = PLACEHOLDERS.into();
        files.extend(parameters.iter().map(|(name, file)| (name.as_str(), file.as_str())));

        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let position = text.len() - rest.len() + at;
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("{{") {
                plain.push('{');
                rest = after;
            } else if let Some(after) = rest.strip_prefix("}}") {
                plain.push('}');
                rest = after;
            } else if let Some((name, after)) =
                rest.strip_prefix('{').and_then(|inside| inside.split_once('}'))
            {
                let file = files.get(name).ok_or_else(|| TemplateError::Unknown {
                    name: name.to_owned(),
                    known: files.keys().copied().collect::<Vec<_>>().join(", "),
                })?;
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
                pieces.push(Piece::File(name.to_owned(), (*file).to_owned()));
                rest = after;
            } else {
                let brace = if rest.starts_with('{') { '{' } else { '}' };
                return Err(TemplateError::Single { brace, at: position });
            }
        }
        plain.push_str(rest);
        pieces.push(Piece::Text(plain));
        Ok(Self(pieces))
    }

    /// The command, with every placeholder replaced by its file, or by nothing if `absent` says so
    /// of its name and file.
    pub fn render(&self, absent: impl Fn(&str, &str) -> bool) -> String {
        self.0
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.as_str(),
                Piece::File(name, file) if absent(name, file) => "",
                Piece::File(_, file) => file.as_str(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Template, TemplateError};

    fn render(text: &str) -> String {
        Template::parse(text, &BTreeMap::new()).unwrap().render(|name, _| name == "geo_file")
    }

    #[test]
    fn placeholders_become_the_names_of_files() {
        assert_eq!(
            render("Rscript train.R {train_data} {model} '{model_config}' --geo={geo_file}"),
            "Rscript train.R data.csv model 'config.yml' --geo=",
        );
        assert_eq!(
            render("p {historic_file} {future_data} > {out_file}"),
            "p historic.csv future.csv > predictions.csv"
        );
    }

    #[test]
    fn braces_written_twice_are_braces() {
        assert_eq!(
            render("awk '{{print $1}}' {data_file} ${{HOME}}"),
            "awk '{print $1}' data.csv ${HOME}"
        );
    }

    #[test]
    fn parameters_add_names() {
        let parameters = BTreeMap::from([("weights".to_owned(), "w.bin".to_owned())]);
        let template = Template::parse("x {weights}", &parameters).unwrap();
        assert_eq!(template.render(|_, _| false), "x w.bin");
    }

    #[test]
    fn a_wrong_template_says_what_is_wrong() {
        let error = Template::parse("x {trian_data}", &BTreeMap::new()).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("unknown placeholder {trian_data}; known are config_file,")
        );
        for (text, at) in [("x {", 2), ("x } y", 2), ("{{ } x", 3)] {
            let error = Template::parse(text, &BTreeMap::new()).unwrap_err();
            assert!(
                matches!(error, TemplateError::Single { at: place, .. } if place == at),
                "{text}"
            );
        }
    }
}
