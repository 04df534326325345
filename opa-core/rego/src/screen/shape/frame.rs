use crate::token::Token;

/// A bracket that is open, and what was seen in it.
pub(super) struct Frame<'a> {
    /// The opening bracket; none for the module itself.
    pub(super) opening: Option<&'a Token<'a>>,
    /// Operators in the current expression, each a level of its tree.
    pub(super) operators: usize,
    /// Statements that have ended.
    pub(super) statements: usize,
    /// The highest bracketed expression within the current one.
    enclosed: usize,
    /// The highest expression that has ended.
    highest: usize,
    /// How often the parser reads what stands around this frame.
    outer: u64,
    part: Part,
}

/// Where in a bracket the position is, as far as it matters to how often the parser reads it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// What is read once each time: arguments, an index, the body of a rule, later items.
    Once,
    /// The body of `every`: each statement is first tried as the left side of an assignment.
    InnerBody,
    /// The first item or key, which is first tried as the head of a comprehension.
    First,
    /// The first value of an object, likewise.
    FirstValue,
    /// After `|`: tried as a query, in it as left side of an assignment, then as an operand.
    Query,
}

impl Part {
    fn times(self) -> u64 {
        match self {
            Self::Once => 1,
            Self::InnerBody | Self::First | Self::FirstValue => 2,
            Self::Query => 3,
        }
    }
}

impl<'a> Frame<'a> {
    pub(super) fn module() -> Self {
        Self {
            opening: None,
            operators: 0,
            statements: 0,
            enclosed: 0,
            highest: 0,
            outer: 1,
            part: Part::Once,
        }
    }

    /// The frame of a bracket that opens in this one.
    pub(super) fn open(&self, opening: &'a Token<'a>, part: Part) -> Self {
        Self {
            opening: Some(opening),
            outer: self.repetitions(),
            part,
            ..Self::module()
        }
    }

    /// How often the parser reads a token here.
    pub(super) fn repetitions(&self) -> u64 {
        self.outer.saturating_mul(self.part.times())
    }

    /// Goes to the next part if `separator` leads there.
    pub(super) fn pass(&mut self, separator: &str) {
        self.part = match (self.part, separator) {
            (Part::First | Part::FirstValue, "|") => Part::Query,
            (Part::First | Part::FirstValue, ",") => Part::Once,
            (Part::First, ":") => Part::FirstValue,
            (part, _) => part,
        };
    }

    pub(super) fn enclose(&mut self, height: usize) {
        self.enclosed = self.enclosed.max(height);
    }

    pub(super) fn end_expression(&mut self) {
        self.highest = self.height();
        self.operators = 0;
        self.enclosed = 0;
    }

    /// The height of the current expression.
    pub(super) fn expression_height(&self) -> usize {
        self.operators + self.enclosed
    }

    /// The height of the highest expression.
    pub(super) fn height(&self) -> usize {
        self.highest.max(self.expression_height())
    }
}
