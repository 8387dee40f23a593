for n in range(10):
    print(n, n * n, sep=",")
