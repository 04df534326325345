mod decisions;
mod load;
mod places;
