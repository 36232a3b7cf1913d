"""What each feature contributes to a prediction: Shapley values of the model that serves, only with numpy."""
