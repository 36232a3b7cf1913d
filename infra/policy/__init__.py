"""The policy pack: what every stack must hold, asked by the engine at each `up` and `preview`."""
