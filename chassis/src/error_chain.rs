//! Errors as one line of text.

use std::error::Error;

/// An error with its causes: the text of many libraries leaves out the cause, which is what helps.
/// A cause that the text before it repeats already is not added again.
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|cause| cause as &(dyn Error + 'static))
        }
    }

    fn layers(texts: &[&'static str]) -> Layer {
        let cause = (texts.len() > 1).then(|| Box::new(layers(&texts[1..])));
        Layer(texts[0], cause)
    }

    #[test]
    fn causes_follow_once_each() {
        assert_eq!(error_chain(&layers(&["no answer"])), "no answer");
        let text = error_chain(&layers(&["no answer", "connect", "refused"]));
        assert_eq!(text, "no answer: connect: refused");
        let text = error_chain(&layers(&["no answer: refused", "refused", "os error 111"]));
        assert_eq!(text, "no answer: refused: os error 111");
    }
}
