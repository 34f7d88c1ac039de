"""From one row of logits to one token, exactly as the options say."""
