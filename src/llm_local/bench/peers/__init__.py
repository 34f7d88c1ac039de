"""What the engine is compared with: programs that run in processes of their own and answer in lines of JSON."""
