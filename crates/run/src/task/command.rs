//! Parameters in shell commands. No I/O in this file.
//!
//! A parameter becomes one quoted word. That is so only where the shell reads words: within quotes
//! of the command's own, what is meant as a quote would end them, and the text of a parameter would
//! be read as commands. So the command is read the way shells do, and a placeholder is refused
//! wherever it is not certain to be read as a word.

/// A command with its parameters: `{name}` becomes what `word` says of the name. Other braces stay
/// as they are.
///
/// # Errors
/// The name of a placeholder that stands where no word is read.
pub(super) fn fill(
    command: &str,
    mut word: impl FnMut(&str) -> Option<String>,
) -> Result<String, &str> {
    let mut filled = String::with_capacity(command.len());
    let (mut rest, mut place) = (command, Place::default());
    while let Some(next) = rest.chars().next() {
        let after = rest.get(next.len_utf8()..).unwrap_or_default();
        if next == '{'
            && let Some((name, after)) = after.split_once('}')
            && let Some(word) = word(name)
        {
            if !place.takes_a_word() {
                return Err(name);
            }
            filled.push_str(&word);
            place.before = '\'';
            rest = after;
            continue;
        }
        filled.push(next);
        place.pass(next, after);
        rest = after;
    }
    Ok(filled)
}

/// A text as one word.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\0', "").replace('\'', "'\\''"))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    /// `(…)` and `$(…)`, where commands are read.
    Parentheses,
    Double,
    Single,
    Comment,
}

/// Where in a command we are.
///
/// Shells differ, and much of what they read depends on more than a few characters. What is not
/// plain makes us lost: from there on, nothing is known to be read as a word.
#[derive(Debug)]
struct Place {
    inside: Vec<Inside>,
    /// The last character, but for lines that are continued. A quote stands for what is quoted.
    before: char,
    /// After a backslash.
    escaped: bool,
    /// Characters that were looked at already.
    skip: usize,
    lost: bool,
}

impl Default for Place {
    fn default() -> Self {
        Self { inside: Vec::new(), before: '\n', escaped: false, skip: 0, lost: false }
    }
}

impl Place {
    fn takes_a_word(&self) -> bool {
        let reads_words = matches!(self.inside.last(), None | Some(Inside::Parentheses));
        // bash reads `$'…'` by other rules than `'…'`.
        reads_words && !self.lost && !self.escaped && self.skip == 0 && self.before != '$'
    }

    /// Goes past a character; `rest` is what follows.
    fn pass(&mut self, it: char, rest: &str) {
        if self.lost {
            return;
        }
        if self.skip > 0 {
            self.skip -= 1;
            self.before = it;
            return;
        }
        if self.escaped {
            self.escaped = false;
            if it != '\n' {
                self.before = '\'';
            }
            return;
        }
        match self.inside.last() {
            Some(Inside::Single) => {
                if it == '\'' {
                    self.inside.pop();
                }
                self.before = '\'';
            }
            Some(Inside::Comment) => {
                if it == '\n' {
                    self.inside.pop();
                    self.before = '\n';
                }
            }
            Some(Inside::Double) => self.pass_quoted(it, rest),
            None | Some(Inside::Parentheses) => self.pass_plain(it, rest),
        }
    }

    fn pass_quoted(&mut self, it: char, rest: &str) {
        match it {
            '"' => {
                self.inside.pop();
            }
            '\\' => return self.escape(rest),
            '$' => return self.expand(rest, true),
            '`' => self.lost = true,
            _ => {}
        }
        self.before = it;
    }

    fn pass_plain(&mut self, it: char, rest: &str) {
        let begins_a_word = " \t\n;&|()<>".contains(self.before);
        match it {
            '\\' => return self.escape(rest),
            '$' => return self.expand(rest, false),
            '\'' => self.inside.push(Inside::Single),
            '"' => self.inside.push(Inside::Double),
            '#' if begins_a_word => self.inside.push(Inside::Comment),
            // Lists of bash, whose indices are arithmetic.
            '(' if self.before == '=' => self.lost = true,
            '(' if rest.starts_with('(') => return self.calculate(rest),
            '(' => self.inside.push(Inside::Parentheses),
            // Patterns of `case` end with one that nothing has begun.
            ')' => {
                self.inside.pop_if(|it| *it == Inside::Parentheses);
            }
            'c' if begins_a_word && rest.starts_with("ase") => {
                self.lost = self.inside.contains(&Inside::Double);
            }
            '[' if is_of_names(self.before) => self.lost = !is_plain_index(rest),
            // Here-documents.
            '<' if self.before == '<' => self.lost = true,
            '`' => self.lost = true,
            _ => {}
        }
        self.before = it;
    }

    fn escape(&mut self, rest: &str) {
        self.escaped = true;
        // A line may be continued in the middle of an operator.
        if rest.starts_with('\n') && !" \t\n".contains(self.before) {
            self.lost = true;
        }
    }

    /// What a `$` begins.
    fn expand(&mut self, rest: &str, quoted: bool) {
        self.before = '$';
        if rest.starts_with("((") {
            self.calculate(rest.get(1..).unwrap_or_default());
            self.skip += usize::from(!self.lost);
        } else if rest.starts_with('(') {
            self.inside.push(Inside::Parentheses);
            self.skip = 1;
        } else if let Some(variable) = rest.strip_prefix('{') {
            match variable.split_once('}') {
                Some((it, _)) if is_plain_variable(it) => self.skip = it.chars().count() + 2,
                _ => self.lost = true,
            }
        } else if rest.starts_with('[') {
            self.lost = true;
        } else if !quoted && let Some(text) = rest.strip_prefix('\'') {
            // In bash a backslash keeps the quote from ending.
            let text = text.split_once('\'').map_or(text, |it| it.0);
            self.lost = text.contains('\\');
        }
    }

    /// Arithmetic, whose first parenthesis is behind us and whose second is next: what is quoted in
    /// it is read otherwise than elsewhere.
    fn calculate(&mut self, rest: &str) {
        let mut open = 1;
        let mut last = '(';
        for (count, it) in rest.chars().enumerate() {
            match it {
                '(' if last == '$' => break,
                '(' => open += 1,
                ')' => open -= 1,
                _ if is_of_names(it) || " \t\n+-*/%<>=!&|^~?:,$".contains(it) => {}
                _ => break,
            }
            if open == 0 {
                self.skip = count + 1;
                return;
            }
            last = it;
        }
        self.lost = true;
    }
}

fn is_of_names(it: char) -> bool {
    it.is_ascii_alphanumeric() || it == '_'
}

/// What is between the braces of `${…}` without quotes or anything else to be expanded.
fn is_plain_variable(text: &str) -> bool {
    let fits = |it: char| is_of_names(it) || "_:-+=?#%*@!./,^~".contains(it);
    text.starts_with(|it| is_of_names(it) || "#?@*!-".contains(it)) && text.chars().all(fits)
}

/// What follows the `[` in `files[0-9]`, and is not more than that.
fn is_plain_index(rest: &str) -> bool {
    let index = rest.split_once(']').map(|it| it.0);
    index.is_some_and(|it| it.chars().all(|it| is_of_names(it) || "@*-^!.,$".contains(it)))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    fn filled<'a>(command: &'a str, text: &str) -> Result<String, &'a str> {
        fill(command, |name| (name == "who").then(|| quoted(text)))
    }

    /// Commands that print the parameter, whatever it is.
    const PRINT: [&str; 16] = [
        "printf %s {who}",
        "who={who}; printf %s \"$who\"",
        "printf '%s' {who} # a comment that isn't finished",
        "# it's\nprintf %s {who}",
        "printf \"%s\" {who}",
        "printf %s \"$(printf %s. {who})\" | sed '$s/[.]$//'",
        "(printf %s {who})",
        "true && { printf %s {who}; }",
        "case {who} in *) printf %s {who};; esac",
        "n=$((1 + (2<<3))); printf %s {who}",
        "printf \"%s\" \\\n {who}",
        "printf %s \"${HOME#*}\"{who}",
        "x='{a}'; printf %s {who}",
        "printf %s ''{who}\"\"",
        "if [ {who} = x ]; then printf x; else printf %s {who}; fi",
        "for it in {who}; do printf %s \"$it\"; done",
    ];

    fn printed(command: &str) -> Vec<u8> {
        let output = Command::new("/bin/sh").arg("-c").arg(command).env("HOME", "").output();
        output.unwrap().stdout
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_parameter_is_one_word_whatever_its_text(
            // Without trailing line ends, which `$(…)` removes and `sed` adds.
            text in prop_oneof![
                "[ -~\n]{0,30}x",
                "['\"\\\\$()`{}#;&|\n a]{0,20}x",
                "\\PC{0,20}x",
            ],
        ) {
            for command in PRINT {
                let filled = filled(command, &text).unwrap();
                let printed = printed(&filled);
                let printed = printed.strip_suffix(b"\n").unwrap_or(&printed);
                prop_assert_eq!(printed, text.as_bytes(), "{}", filled);
            }
        }

        /// Whatever is accepted runs nothing that a parameter says.
        #[test]
        fn no_parameter_is_ever_run(
            pieces in prop::collection::vec(
                prop::sample::select(vec![
                    "{who}", "{who}", "{who}", "echo ", " ", "\n", "\"", "\"", "'", "'", "\\", "$",
                    "$(", "(", ")", ")", "`", "#", "<<E\n", "E\n", "${x}", "${x:-", "}", "$((", "1",
                    "))", "case x in x) ", ";; esac", ";", "a[", "]", "=", "=(", "<", "&&", "\\\n",
                    "x",
                ]),
                1..14,
            ),
        ) {
            let command = pieces.concat();
            if filled(&command, "").is_err() || !command.contains("{who}") {
                return Ok(());
            }
            let directory = tempfile::tempdir().unwrap();
            for text in [
                "$(touch run)", "`touch run`", "'; touch run; '", "\"; touch run; \"",
                "\ntouch run\n", "\\'; touch run #", "a[$(touch run)]", "\nE\ntouch run\n",
            ] {
                let filled = filled(&command, text).unwrap();
                let mut shell = Command::new("/bin/sh");
                let shell = shell.arg("-c").arg(&filled).current_dir(directory.path());
                shell.stdin(std::process::Stdio::null()).output().unwrap();
                prop_assert!(!directory.path().join("run").exists(), "{}", filled);
            }
        }
    }

    #[test]
    fn a_placeholder_is_refused_where_no_word_is_read() {
        for command in [
            "echo \"{who}\"",
            "grep '{who}' f",
            "echo `echo {who}`",
            "true `date` {who}",
            "echo a # {who}",
            "# {who}",
            "cat <<E\n{who}\nE",
            "cat <<'E'\nE\necho {who}",
            "cat <<{who}",
            "cat <\\\n<E\n{who}\nE",
            "echo \\{who}",
            "echo ${who}",
            "echo $\\\n{who}",
            "echo ${x:-{who}}",
            "echo \"${x:-\"a\"}{who}\"",
            "echo $(({who} + 1))",
            "echo $[{who}]",
            "echo $(( ' )) '{who}'",
            "a[{who}]=1",
            "a[ {who} ]=1",
            "a=([{who}]=1)",
            "echo $'a\\' {who} b'",
            "echo \"$(echo \"{who}\")\"",
            "echo \"$(case x in x) echo '\"';; esac) {who}\"",
            "echo \"$\\\n(echo '\"') {who}",
        ] {
            assert_eq!(filled(command, "x"), Err("who"), "{command}");
        }
    }

    #[test]
    fn other_braces_stay() {
        let command = "awk '{print}' {who} {other} {a{who}} ${HOME}";
        assert_eq!(
            filled(command, "it's").unwrap(),
            r"awk '{print}' 'it'\''s' {other} {a'it'\''s'} ${HOME}"
        );
    }
}
