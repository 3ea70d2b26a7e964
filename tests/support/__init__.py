"""What tests share: plans without a coordinator, and an observer that remembers."""
