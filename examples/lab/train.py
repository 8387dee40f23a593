print("a model is trained here")
