"""From the bytes of a picture, which are hostile input, to the pixels that the network takes."""
