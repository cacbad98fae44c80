"""The instruments applied to a trained model, one record a measurement."""
